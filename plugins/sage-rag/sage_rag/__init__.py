"""Retrieval operators for SAGE workflows: from files to cited passages."""

from __future__ import annotations

from collections.abc import Mapping

from sage_core import hookimpl


@hookimpl
def sage_operators() -> Mapping[str, str]:
    """Name the operators; their modules load when a workflow first uses them."""
    return {
        "rag.files": "sage_rag.files:files",
        "rag.parse": "sage_rag.parse:Parse",
        "rag.chunk": "sage_rag.chunk:chunk",
        "rag.index": "sage_rag.index:BuildIndex",
        "rag.retrieve": "sage_rag.retrieve:retrieve",
        "rag.highlight": "sage_rag.highlight:highlight",
        "rag.rerank": "sage_rag.rerank:rerank",
        "rag.prompt": "sage_rag.prompt:prompt",
        "rag.evaluate": "sage_rag.evaluate:evaluate",
    }
