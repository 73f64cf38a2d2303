"""Model operators for SAGE workflows; every call goes through the run's inference client."""

from __future__ import annotations

from collections.abc import Mapping

from sage_core import hookimpl


@hookimpl
def sage_operators() -> Mapping[str, str]:
    """Name the operators; their modules load when a workflow first uses them."""
    return {
        "llm.embed": "sage_llm.embed:embed",
        "llm.generate": "sage_llm.generate:generate",
        "llm.rerank": "sage_llm.rerank:rerank",
        "llm.extract": "sage_llm.extract:extract",
    }
