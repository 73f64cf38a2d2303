"""Plugin `openai`: any server that speaks OpenAI's HTTP as an engine."""

from __future__ import annotations

from collections.abc import Mapping

from sage_core import hookimpl


@hookimpl
def sage_backends() -> Mapping[str, str]:
    """Offer the backend `openai`."""
    return {"openai": "sage_openai.backend:OpenAIBackend"}
