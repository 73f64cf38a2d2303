"""The backend `local`: finds a GGUF file, identifies it cheaply, opens an engine on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sage_core import Engine, ModelSpec
from sage_local.add import add_model
from sage_local.weights import PACKAGED, find_weights, read_options

if TYPE_CHECKING:
    from sage_local.engine import LlamaEngine


class LocalBackend:
    """Runs a language model in this process."""

    #: Names that default weights are found for.
    packaged = tuple(PACKAGED)

    def identify(self, model: ModelSpec) -> str:
        return find_weights(model).identity

    def open(self, model: ModelSpec) -> AbstractAsyncContextManager[Engine]:
        return self._open(model)

    def add(self, name: str, source: str, options: Mapping[str, object], target: Path) -> Mapping[str, object]:
        """Fill the folder `target` with the GGUF file that `source` names."""
        return add_model(name, source, options, target)

    @asynccontextmanager
    async def _open(self, model: ModelSpec) -> AsyncIterator[Engine]:
        loading = asyncio.ensure_future(asyncio.to_thread(_load, model))
        try:
            engine = await asyncio.shield(loading)
        except asyncio.CancelledError:
            # A thread cannot be stopped, and what it has loaded must be freed.
            await asyncio.to_thread((await loading).close)
            raise
        try:
            yield engine
        finally:
            await asyncio.to_thread(engine.close)


def _load(model: ModelSpec) -> LlamaEngine:
    # llama.cpp is a library of 100 MB: `sage check` and `identify` do without it.
    from sage_local.engine import LlamaEngine  # noqa: PLC0415

    return LlamaEngine(model.name, find_weights(model), read_options(model))
