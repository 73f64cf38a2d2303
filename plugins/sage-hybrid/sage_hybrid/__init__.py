"""The policy `hybrid`: deadlines, fair shares and batch work behind one set of engines."""

from __future__ import annotations

from collections.abc import Mapping

from sage_core import hookimpl


@hookimpl
def sage_schedulers() -> Mapping[str, str]:
    """Name the policy; its module loads when a pool uses it."""
    return {"hybrid": "sage_hybrid.policy:HybridSchedulingPolicy"}
