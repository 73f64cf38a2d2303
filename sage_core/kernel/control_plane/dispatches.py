"""Runs dispatches on engines: each in a task of its own, which reports how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from sage_core.common.clock import SECOND, Clock
from sage_core.common.contracts import Embeds, Engine, Forwards, Generates, Reranks, Tokenizes
from sage_core.common.errors import AttemptFailed, InvalidRequest, ModelError, SageError
from sage_core.common.records import Chunk, Lane, Request, Token
from sage_core.kernel.control_plane import events
from sage_core.kernel.control_plane.engines import EnginePools
from sage_core.kernel.control_plane.pace import Pace
from sage_core.kernel.control_plane.replies import Reply

if TYPE_CHECKING:
    import numpy.typing

    Floats = numpy.typing.NDArray[numpy.float32]

#: Tokens in, tokens out, and of those in the ones computed before, as an engine counted; 0 where it does not.
Counts = tuple[int, int, int]
#: Asks an engine; returns its result and its counts.
Work = Callable[[], Coroutine[Any, Any, tuple[Any, Counts]]]
_UNCOUNTED = (0, 0, 0)
#: What the content type of a stream of events begins with.
EVENTS = "text/event-stream"
#: What a user may do about an engine that broke.
CLOSED = "it was closed, and the next request opens another one; run again"


class Trail:
    """What a request has met so far, for those who tell its caller."""

    __slots__ = ("engine", "first", "wait")

    def __init__(self) -> None:
        #: The engine it was sent to last; empty before its first dispatch.
        self.engine = ""
        #: Seconds it waited for that dispatch, and from there to the first piece of the answer.
        self.wait = 0.0
        self.first = 0.0


class Call(Reply):
    """A request on its way: its payload, and where its answer goes."""

    __slots__ = ("lane", "request", "trail", "vectors")

    def __init__(self, request: Request, lane: Lane, trail: Trail) -> None:
        super().__init__()
        self.request = request
        self.lane = lane
        self.trail = trail
        #: The answer to an embed request, as far as its batches have come.
        self.vectors: Floats | None = None


class Dispatches:
    """What is in the engines now.

    Args:
        feed: told of everything that happens to a dispatch.
    """

    def __init__(
        self, tasks: asyncio.TaskGroup, pools: EnginePools, clock: Clock, feed: Callable[[events.Input], None]
    ) -> None:
        self._tasks = tasks
        self._pools = pools
        self._clock = clock
        self._feed = feed
        self._running: dict[int, asyncio.Task[None]] = {}
        self._paces: dict[str, Pace] = {}
        #: What those that ended in this instant gave, by ticket; why others failed, by ticket or engine.
        self.results: dict[int, Any] = {}
        self.errors: dict[int | str, Exception] = {}

    def embed(self, action: events.DispatchBatch, rows: Sequence[tuple[Call, int]]) -> None:
        """Embed texts of several calls together."""
        for call, _ in rows:
            call.trail.engine = action.engine
        texts = [call.request.texts[index] for call, index in rows]
        first = rows[0][0].request
        self._spawn(action, first.model, partial(self._embed, action.engine, first, texts))

    def one(self, action: events.DispatchOne, call: Call) -> None:
        """Run one call."""
        call.trail.engine, call.trail.wait = action.engine, action.wait / SECOND
        self._spawn(action, call.request.model, partial(self._one, action, call))

    def abort(self, ticket: int) -> None:
        """Stop one that nobody waits for; one that has ended is let be."""
        if ticket in self._running:
            self._running[ticket].cancel()

    def forget(self) -> None:
        """Drop what ended in this instant: each was kept for an input of it."""
        self.results.clear()
        self.errors.clear()

    def unpace(self, engine: str) -> None:
        """Forget how fast an engine's streams went."""
        self._paces.pop(engine, None)

    def close(self) -> None:
        """Stop all."""
        for task in self._running.values():
            task.cancel()

    def _spawn(self, action: events.DispatchBatch | events.DispatchOne, model: str, work: Work) -> None:
        task = self._running[action.ticket] = self._tasks.create_task(self._run(action, model, work))
        # The loop runs a task's first step before a later pump: what `Abort` cancels has begun and reports its end.
        task.add_done_callback(lambda _: self._running.pop(action.ticket, None))

    async def _run(self, action: events.DispatchBatch | events.DispatchOne, model: str, work: Work) -> None:
        began = self._clock.now()
        try:
            self.results[action.ticket], (tokens_in, tokens_out, cached) = await work()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - an engine may fail in any way; see `_broke`
            self._broke(action, began, model, error)
        else:
            seconds = (self._clock.now() - began) / SECOND
            self._feed(
                events.Completed(
                    ticket=action.ticket, seconds=seconds, tokens_in=tokens_in, tokens_out=tokens_out, cached=cached
                )
            )

    async def _embed(self, engine: str, request: Request, texts: list[str]) -> tuple[Floats, Counts]:
        running = self._able(engine, request)
        embedder: Embeds = running
        matrix = await embedder.embed(texts)
        shape = (len(texts), running.dimension)
        if matrix.shape != shape or matrix.dtype.name != "float32":
            what = f"{matrix.dtype} {matrix.shape} and not float32 {shape}"
            raise ModelError(request.model, f"its engine returned {what}")
        return matrix, _UNCOUNTED

    async def _one(self, action: events.DispatchOne, call: Call) -> tuple[Any, Counts]:
        request = call.request
        engine = self._able(action.engine, request)
        if request.body and hasattr(engine, "forward"):
            return await self._forward(action, engine, call)
        if request.kind == "generate":
            last = await self._stream(action, engine, call)
            return None, (last.prompt_tokens, last.completion_tokens, 0)
        if request.kind == "embed":
            help = "send texts, without dimensions"
            raise InvalidRequest(request.model, "it cannot pass a request on", help, "unsupported")
        if request.kind == "rerank":
            reranker: Reranks = engine
            scores = await reranker.rerank(request.texts[0], request.texts[1:])
            if len(scores) != len(request.texts) - 1:
                what = f"{len(scores)} scores for {len(request.texts) - 1} documents"
                raise ModelError(request.model, f"its engine returned {what}")
            return scores, _UNCOUNTED
        tokenizer: Tokenizes = engine
        spans = await tokenizer.tokenize(request.texts)
        return spans, (sum(map(len, spans)), 0, 0)

    async def _stream(self, action: events.DispatchOne, engine: Generates, call: Call) -> Token:
        token = Token()
        began = self._clock.now()
        async with aclosing(engine.generate(call.request)) as stream:  # type: ignore[type-var]  # generators by contract
            async for token in stream:
                began = self._streamed(action, call, began, 1, timed=True)
                call.push(token)
        if not token.finish:
            raise ModelError(call.request.model, "its engine ended a stream without saying why")
        return token

    async def _forward(self, action: events.DispatchOne, engine: Forwards, call: Call) -> tuple[None, Counts]:
        chunk: Chunk | None = None
        counted = _UNCOUNTED
        last = self._clock.now()
        async with aclosing(engine.forward(call.request)) as stream:  # type: ignore[type-var]  # as above
            async for chunk in stream:
                last = self._streamed(action, call, last, chunk.tokens, timed=chunk.content_type.startswith(EVENTS))
                call.push(chunk)
                if chunk.prompt_tokens or chunk.completion_tokens:
                    counted = chunk.prompt_tokens, chunk.completion_tokens, chunk.cached_tokens
                # Whoever reads slowly holds up the engine's stream, and not our memory.
                await call.room()
        if chunk is None:
            raise AttemptFailed(call.request.model, "its engine answered nothing")
        return None, counted

    def _streamed(self, action: events.DispatchOne, call: Call, last: int, tokens: int, *, timed: bool) -> int:
        now = self._clock.now()
        if not call.trail.first:
            call.trail.first = max(now - last, 1) / SECOND
            # An answer that comes as a whole says nothing about its first token.
            self._feed(events.Started(ticket=action.ticket, seconds=call.trail.first if timed else 0.0))
        elif tokens:
            itl = self._paces.setdefault(action.engine, Pace(now)).add(now - last, tokens, now)
            if itl is not None:
                self._feed(events.Paced(engine=action.engine, itl=itl))
        return now

    def _able(self, engine: str, request: Request) -> Any:
        # A kind is also the name of the method that serves it; isinstance on a Protocol costs 20 times as much.
        try:
            running: Engine = self._pools.engine(engine)
        except KeyError:
            # It was lost after the decision and before this first step: the request has not met it.
            raise AttemptFailed(request.model, "its engine was gone before it was asked") from None
        method = "forward" if request.body and hasattr(running, "forward") else request.kind
        if request.kind not in running.kinds or not hasattr(running, method):
            able = ", ".join(running.kinds)
            help = f"its backend serves: {able}; name another model in this step"
            raise InvalidRequest(request.model, f"it cannot {request.kind}", help, "unsupported")
        return running

    def _broke(
        self, action: events.DispatchBatch | events.DispatchOne, began: int, model: str, error: BaseException
    ) -> None:
        # What a request got wrong, an engine says with an error of SAGE's; anything else is a defect of its own.
        fatal = isinstance(error, Exception) and not isinstance(error, SageError)
        if fatal:
            error = ModelError(model, f"its engine raised {type(error).__name__}: {error}", CLOSED)
            # Also what fails the streams that the engine had begun.
            self.errors[action.engine] = error
        if isinstance(error, Exception):
            self.errors[action.ticket] = error
        again = isinstance(error, AttemptFailed)
        broke = events.Broke(
            ticket=action.ticket,
            seconds=(self._clock.now() - began) / SECOND,
            reason=str(error) or type(error).__name__,
            fatal=fatal,
            again=again,
            pause=error.pause if isinstance(error, AttemptFailed) else 0.0,
        )
        self._feed(broke)
