"""`sage bench`: measures SAGE through its own command, and says how to measure it again."""

from __future__ import annotations

from collections.abc import Mapping

from sage_core import hookimpl


@hookimpl
def sage_commands() -> Mapping[str, str]:
    """Add `sage bench`."""
    return {"bench": "sage_bench.command:bench"}


@hookimpl
def sage_operators() -> Mapping[str, str]:
    """Name the operators that only the workflows of suites use."""
    return {
        "bench.questions": "sage_bench.operators:questions",
        "bench.ranked": "sage_bench.operators:ranked",
        "bench.numbers": "sage_bench.operators:numbers",
        "bench.same": "sage_bench.operators:same",
        "bench.total": "sage_bench.operators:total",
    }
