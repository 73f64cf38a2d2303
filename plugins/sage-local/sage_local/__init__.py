"""Plugin `local`: a small language model on the CPU, from any GGUF file, without a server to start."""

from __future__ import annotations

from collections.abc import Mapping

from sage_core import hookimpl


@hookimpl
def sage_backends() -> Mapping[str, str]:
    """Offer the backend `local`."""
    return {"local": "sage_local.backend:LocalBackend"}
