"""Plugin `vllm`: vLLM servers as engines, launched and ended by SAGE."""

from __future__ import annotations

from collections.abc import Mapping

from sage_core import hookimpl


@hookimpl
def sage_backends() -> Mapping[str, str]:
    """Offer the backend `vllm`."""
    return {"vllm": "sage_vllm.backend:VllmBackend"}


@hookimpl
def sage_commands() -> Mapping[str, str]:
    """Add `sage vllm`."""
    return {"vllm": "sage_vllm.command:vllm"}
