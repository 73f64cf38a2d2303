"""A workflow's run as it goes: which step begins, and the text of the answer while the last model writes it.

Workers ask models by way of this process, the engine host of its machine: what their models write passes here anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from sage_core import Token
from sage_core.serving import Graph, Report
from sage_gateway.gateway import Gateway


class Piece(msgspec.Struct, frozen=True):
    """A piece of the answer's text."""

    text: str


class Writing:
    """The text of an answer while it is written; a call that is made again must first say again what was shown."""

    def __init__(self) -> None:
        self._request = ""
        self._written = ""
        #: What has been handed out.
        self.shown = ""

    def add(self, request: str, text: str) -> str:
        """Take a piece in, and give what may be shown by it."""
        if request != self._request:
            self._request, self._written = request, ""
        self._written += text
        if not self._written.startswith(self.shown):
            return ""
        piece = self._written[len(self.shown) :]
        self.shown = self._written
        return piece


def writer_of(graph: Graph, output: str) -> str:
    """The step whose one model call writes an output word for word, as its operator promises; empty where none does."""
    binding = graph.outputs.get(output)
    if binding is None or len(binding.refs) != 1:
        return ""
    (ref,) = binding.refs
    step = graph.steps.get(ref.step)
    if step is None or ref.fields or not ref.column or step.signature.streamed != ref.column:
        return ""
    # One row, once: the answers of several calls would come in pieces of each.
    once = step.grain == step.out == "" and step.repeat is None and not step.matrix
    return step.name if once else ""


async def followed(gateway: Gateway, run_id: str, step: str) -> AsyncGenerator[str | Piece | Report]:
    """Yield the first step of each stage as it begins, what `step` writes as it writes it, and at last the end.

    Args:
        step: see `writer_of`; empty where nothing is to be shown before the end.
    """
    news: asyncio.Queue[str | Piece | Report | Exception] = asyncio.Queue()
    writing = Writing()

    def listen(request: str, token: Token) -> None:
        if text := writing.add(request, token.text):
            news.put_nowait(Piece(text))

    async def watch() -> None:
        try:
            async with aclosing(gateway.desk.follow(run_id)) as steps:
                async for told in steps:
                    news.put_nowait(told)
        except Exception as error:  # noqa: BLE001 - it belongs to whoever reads
            news.put_nowait(error)

    listeners = gateway.service.listeners
    if step:
        listeners[run_id, step] = listen
    watching = asyncio.create_task(watch(), name=f"run {run_id}")
    try:
        while True:
            told = await news.get()
            if isinstance(told, Exception):
                raise told
            yield told
            if isinstance(told, Report):
                return
    finally:
        watching.cancel()
        listeners.pop((run_id, step), None)
