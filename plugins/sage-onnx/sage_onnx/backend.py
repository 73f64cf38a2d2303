"""The backend `onnx`: finds a model's files, identifies them cheaply, opens an engine on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sage_core import Engine, ModelSpec
from sage_onnx.weights import PACKAGED, Weights, find_weights, read_options

if TYPE_CHECKING:
    from sage_onnx.engine import OnnxEmbedder, OnnxReranker


class OnnxBackend:
    """Runs embedding models and cross-encoders in this process."""

    #: Names that default weights are found for.
    packaged = tuple(PACKAGED)

    def identify(self, model: ModelSpec) -> str:
        return find_weights(model).identity

    def open(self, model: ModelSpec) -> AbstractAsyncContextManager[Engine]:
        return self._open(model)

    def add(self, name: str, source: str, options: Mapping[str, object], target: Path) -> Mapping[str, object]:
        """Fill `target` from `source`, exported and quantised as `options` say; returns what was measured."""
        # Measuring loads onnxruntime, which `identify` does without.
        from sage_onnx.export import add_model  # noqa: PLC0415

        return add_model(name, source, options, target)

    @asynccontextmanager
    async def _open(self, model: ModelSpec) -> AsyncIterator[Engine]:
        weights, options = find_weights(model), read_options(model)
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"onnx-{model.name}")
        try:
            yield await asyncio.get_running_loop().run_in_executor(
                thread, _load, model.name, weights, options.threads, thread
            )
        finally:
            await asyncio.to_thread(thread.shutdown, wait=True, cancel_futures=True)


def _load(name: str, weights: Weights, threads: int, thread: ThreadPoolExecutor) -> OnnxEmbedder | OnnxReranker:
    # onnxruntime and numpy take a third of a second to import: `sage check` and `identify` do without them.
    from sage_onnx.engine import OnnxEmbedder, OnnxReranker  # noqa: PLC0415
    from sage_onnx.session import Session  # noqa: PLC0415

    session = Session(name, weights, threads)
    if weights.settings.kind == "rerank":
        return OnnxReranker(name, session, weights.settings, thread)
    return OnnxEmbedder(name, session, weights.settings, thread)
