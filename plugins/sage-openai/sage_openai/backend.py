"""The backend `openai`: asks a server what it serves, and holds its connections open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from sage_core import Engine, ModelSpec
from sage_openai.options import identity, read_options

if TYPE_CHECKING:
    from sage_openai.engine import OpenAIEngine


class OpenAIBackend:
    """Runs no model itself: it sends requests to a server that does."""

    def identify(self, model: ModelSpec) -> str:
        return identity(model, read_options(model))

    def open(self, model: ModelSpec) -> AbstractAsyncContextManager[Engine]:
        return self._open(model)

    @asynccontextmanager
    async def _open(self, model: ModelSpec) -> AsyncIterator[OpenAIEngine]:
        # The HTTP client costs a fifth of a second: `sage check` and `identify` do without it.
        from sage_openai.engine import OpenAIEngine  # noqa: PLC0415
        from sage_openai.server import Server  # noqa: PLC0415

        options = read_options(model)
        async with Server(model, options) as server:
            engine = OpenAIEngine(model, options, server)
            await engine.ask_about_itself()
            yield engine
