"""Plugin `onnx`: embedding and reranking models on ONNX Runtime, on the CPU, without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping

from sage_core import hookimpl


@hookimpl
def sage_backends() -> Mapping[str, str]:
    """Offer the backend `onnx`."""
    return {"onnx": "sage_onnx.backend:OnnxBackend"}
