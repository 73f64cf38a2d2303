"""Runs the manager in real time on asyncio: feeds it what happens, does what it says, holds the payloads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, aclosing
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from sage_core.common.clock import SECOND, Clock, SystemClock
from sage_core.common.contracts import Embeds, Engine, Forwards, Generates, Reranks, Tokenizes
from sage_core.common.errors import AttemptFailed, ModelError, NoEngine, RequestRejected, SageError, UsageError
from sage_core.common.records import Chunk, EngineInfo, Lane, ModelSpec, PoolSpec, QueueLimits, Request, Token
from sage_core.common.registry import Registry
from sage_core.common.telemetry import log
from sage_core.kernel.control_plane import events
from sage_core.kernel.control_plane.engines import EnginePools, Held
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.kernel.control_plane.pace import Pace
from sage_core.kernel.control_plane.pool_specs import pool_of
from sage_core.kernel.control_plane.replies import Reply

if TYPE_CHECKING:
    import numpy.typing

    Floats = numpy.typing.NDArray[numpy.float32]

#: Receives the lines decided in one instant, each with its request.
Sink = Callable[[Sequence[tuple[Request, events.Decided]]], None]
#: Asks an engine; returns its result, and the tokens in and out that it counted.
Work = Callable[[], Coroutine[Any, Any, tuple[Any, int, int]]]
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


class _Call(Reply):
    """A request on its way: its payload, and where its answer goes."""

    __slots__ = ("lane", "request", "trail", "vectors")

    def __init__(self, request: Request, lane: Lane, trail: Trail) -> None:
        super().__init__()
        self.request = request
        self.lane = lane
        self.trail = trail
        #: The answer to an embed request, as far as its batches have come.
        self.vectors: Floats | None = None


class Driver:
    """The asyncio shell of one manager; an async context manager.

    Args:
        manager: the state machine; nobody else may feed it.
        backends: where engines come from.
        sink: called with the decisions of each instant.
        record: called with each instant before it is applied: `replay` of these makes the same decisions.
        held: see `EnginePools`.
    """

    def __init__(
        self,
        manager: ControlPlaneManager,
        backends: Registry,
        *,
        clock: Clock | None = None,
        sink: Sink | None = None,
        record: Callable[[events.Instant], None] | None = None,
        held: Held = lambda models: None,
    ) -> None:
        self.manager = manager
        self._backends = backends
        self._clock = clock or SystemClock()
        self._sink = sink
        self._record = record
        self._held = held
        self._calls: dict[str, _Call] = {}
        self._inbox: list[events.Input] = []
        self._pumping = False
        self._timer: asyncio.TimerHandle | None = None
        self._running: dict[int, asyncio.Task[None]] = {}
        self._results: dict[int, Any] = {}
        self._errors: dict[int | str, Exception] = {}
        self._stack = AsyncExitStack()
        self._closing = False
        self._paces: dict[str, Pace] = {}

    async def __aenter__(self) -> Driver:
        self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        self.pools = EnginePools(self._backends, self._tasks, self._engine_changed, self._held)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for call in list(self._calls.values()):
            call.fail(RequestRejected("the control plane is closing"))
        # Cancellations that are on their way are applied first, so that the record of the last instant is complete.
        self._pump()
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._running.values():
            task.cancel()
        self.pools.close()
        await self._stack.aclose()

    # ------------------------------------------------------------ what clients call

    async def ask(self, request: Request, spec: ModelSpec, *, about: bool = False, trail: Trail | None = None) -> Any:
        """The answer to any request but a stream; `about` asks only what serves the model, and opens it."""
        call = self._submit(request, spec, about=about, trail=trail)
        try:
            answer = await call.done
        finally:
            self._leave(call)
        if answer is not None:
            return answer
        info = self.pools.info(call.lane)
        if info is None:
            raise ModelError(spec.name, "its engine closed while it was looked at")
        if about:
            # Two names of one model share its engine.
            return msgspec.structs.replace(info, model=spec.name)
        import numpy  # noqa: PLC0415 - a client that only attaches must not pay for it

        return numpy.zeros((0, info.dimension), numpy.float32)

    async def generate(self, request: Request, spec: ModelSpec, *, trail: Trail | None = None) -> AsyncGenerator[Token]:
        """Stream the answer; closing the iterator cancels the request."""
        call = self._submit(request, spec, trail=trail)
        try:
            while (token := await call.token()) is not None:
                yield token
        finally:
            self._leave(call)

    async def forward(
        self, request: Request, spec: ModelSpec, *, trail: Trail | None = None
    ) -> AsyncGenerator[Chunk | Token]:
        """Stream what the engine answers to ``request.body``, unchanged; closing the iterator cancels the request.

        Chunks come from an engine that `Forwards`, tokens from one that only `Generates`.
        """
        call = self._submit(request, spec, trail=trail)
        try:
            while (piece := await call.token()) is not None:
                yield piece
        finally:
            self._leave(call)

    # ------------------------------------------------------------ what operators call

    def serve(self, spec: ModelSpec, *, queue: QueueLimits | None = None) -> PoolSpec:
        """Keep a pool for a model from here on, or change the settings of the one that is there."""
        pool = pool_of(spec, queue=queue)
        self.pools.replace(pool.lane, spec)
        self._feed(events.PoolSet(pool=pool))
        return pool

    def withdraw(self, lane: Lane) -> None:
        """Serve a model no longer: what waits for it ends, what runs goes on."""
        self._feed(events.PoolGone(lane=lane))

    def switch(self, policy: str, lane: Lane = "") -> None:
        """Let another policy decide, in one pool or in all that name none; the name must be known."""
        self._feed(events.PolicySet(policy=policy, lane=lane))

    def drain(self, engine: str) -> None:
        """Send an engine nothing more, and close it when it holds nothing."""
        self._feed(events.Drain(engine=engine))

    # ------------------------------------------------------------ requests

    def _submit(self, request: Request, spec: ModelSpec, *, about: bool = False, trail: Trail | None = None) -> _Call:
        if self._closing:
            raise RequestRejected("the control plane is closing")
        if request.id in self._calls:
            raise UsageError(f"request {request.id!r} is in flight already", "ids are unique among live requests")
        lane = events.lane_of(spec)
        if self.pools.register(lane, spec):
            self._feed(events.PoolSet(pool=pool_of(spec)))
        submitted = events.Submitted(outline=events.outline(request, lane, about=about))
        call = self._calls[request.id] = _Call(request, lane, trail or Trail())
        self._feed(submitted)
        return call

    def _leave(self, call: _Call) -> None:
        # The manager has not ended it. The future says nothing: cancelling a task cancels the future that it awaits.
        if self._calls.get(call.request.id) is call:
            self._feed(events.Cancelled(request=call.request.id))

    # ------------------------------------------------------------ the pump

    def _feed(self, event: events.Input) -> None:
        self._inbox.append(event)
        if not self._pumping and not self._closing:
            # Everything that happens in this turn of the loop is one instant.
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        if self._closing:
            return
        inputs, self._inbox = self._inbox, []
        instant = events.Instant(now=self._clock.now(), inputs=tuple(inputs))
        if self._record is not None:
            self._record(instant)
        try:
            actions = self.manager.step(instant.inputs, instant.now)
        except Exception as error:  # a defect of the control plane must end its requests, not hang them
            log("control_plane_failed", level=logging.CRITICAL, error=f"{type(error).__name__}: {error}")
            for call in list(self._calls.values()):
                call.fail(error)
            raise
        decisions = []
        for action in actions:
            if isinstance(action, events.Decided):
                decisions.append((self._calls[action.request].request, action))
            else:
                self._do(action)
        # Each was kept for an input of this instant.
        self._results.clear()
        self._errors.clear()
        if decisions and self._sink is not None:
            try:
                self._sink(decisions)
            except Exception as error:  # noqa: BLE001 - a full disk must neither fail requests nor keep engines open
                log("decisions_lost", level=logging.ERROR, error=f"{type(error).__name__}: {error}")

    def _do(self, action: events.Action) -> None:
        if isinstance(action, events.DispatchBatch):
            texts = [self._calls[request].request.texts[index] for request, index in action.rows]
            for request, _ in action.rows:
                self._calls[request].trail.engine = action.engine
            first = self._calls[action.rows[0][0]].request
            self._spawn(action, first, partial(self._embed, action.engine, first, texts))
        elif isinstance(action, events.DispatchOne):
            call = self._calls[action.request]
            call.trail.engine, call.trail.wait = action.engine, action.wait / SECOND
            self._spawn(action, call.request, partial(self._one, action, call))
        elif isinstance(action, events.Fill):
            self._fill(action)
        elif isinstance(action, events.End):
            self._end(action)
        elif isinstance(action, events.Abort):
            if action.ticket in self._running:
                self._running[action.ticket].cancel()
        elif isinstance(action, events.StartEngine):
            self.pools.start(action.engine, action.lane, action.member)
        elif isinstance(action, events.StopEngine):
            self._paces.pop(action.engine, None)
            self.pools.stop(action.engine)
        elif isinstance(action, events.ArmTimer):
            self._arm(action.at)

    def _arm(self, at: int | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            delay = max(0.0, (at - self._clock.now()) / SECOND)
            self._timer = asyncio.get_running_loop().call_later(delay, self._feed, events.Tick())

    def _fill(self, action: events.Fill) -> None:
        import numpy  # noqa: PLC0415 - only where vectors are

        call = self._calls[action.request]
        matrix = self._results[action.ticket]
        if call.vectors is None:
            call.vectors = numpy.zeros((len(call.request.texts), matrix.shape[1]), numpy.float32)
        call.vectors[list(action.at)] = matrix[list(action.rows)]

    def _end(self, action: events.End) -> None:
        call = self._calls.pop(action.request)
        if action.outcome == "done":
            call.give(call.vectors if call.request.kind == "embed" else self._results.get(action.ticket))
        elif action.outcome in ("rejected", "shed"):
            call.fail(RequestRejected(action.reason, action.retry_after))
        elif action.outcome == "cancelled":
            call.fail(RequestRejected("the request was cancelled"))
        elif action.outcome == "unavailable":
            call.fail(NoEngine(call.request.model, action.reason, action.retry_after))
        else:
            cause = self._errors.get(action.ticket) or self._errors.get(action.engine)
            call.fail(cause or ModelError(call.request.model, action.reason))

    # ------------------------------------------------------------ engines

    def _engine_changed(self, engine: str, what: EngineInfo | Exception) -> None:
        if isinstance(what, EngineInfo):
            self._feed(events.EngineOpened(engine=engine, info=what))
        else:
            self._errors[engine] = what
            self._feed(events.EngineLost(engine=engine, reason=str(what)))

    def _spawn(self, action: events.DispatchBatch | events.DispatchOne, request: Request, work: Work) -> None:
        task = self._running[action.ticket] = self._tasks.create_task(self._run(action, request, work))
        # The loop runs a task's first step before a later pump: what `Abort` cancels has begun and reports its end.
        task.add_done_callback(lambda _: self._running.pop(action.ticket, None))

    async def _run(self, action: events.DispatchBatch | events.DispatchOne, request: Request, work: Work) -> None:
        began = self._clock.now()
        try:
            self._results[action.ticket], tokens_in, tokens_out = await work()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - an engine may fail in any way; see `_broke`
            self._broke(action, began, request.model, error)
        else:
            seconds = (self._clock.now() - began) / SECOND
            done = events.Completed(ticket=action.ticket, seconds=seconds, tokens_in=tokens_in, tokens_out=tokens_out)
            self._feed(done)

    async def _embed(self, engine: str, request: Request, texts: list[str]) -> tuple[Floats, int, int]:
        running = self._able(engine, request)
        embedder: Embeds = running
        matrix = await embedder.embed(texts)
        shape = (len(texts), running.dimension)
        if matrix.shape != shape or matrix.dtype.name != "float32":
            what = f"{matrix.dtype} {matrix.shape} and not float32 {shape}"
            raise ModelError(request.model, f"its engine returned {what}")
        return matrix, 0, 0

    async def _one(self, action: events.DispatchOne, call: _Call) -> tuple[Any, int, int]:
        request = call.request
        engine = self._able(action.engine, request)
        if request.body and hasattr(engine, "forward"):
            return await self._forward(action, engine, call)
        if request.kind == "generate":
            last = await self._stream(action, engine, call)
            return None, last.prompt_tokens, last.completion_tokens
        if request.kind == "rerank":
            reranker: Reranks = engine
            return await reranker.rerank(request.texts[0], request.texts[1:]), 0, 0
        tokenizer: Tokenizes = engine
        spans = await tokenizer.tokenize(request.texts)
        return spans, sum(map(len, spans)), 0

    async def _stream(self, action: events.DispatchOne, engine: Generates, call: _Call) -> Token:
        token = Token()
        began = self._clock.now()
        async with aclosing(engine.generate(call.request)) as stream:  # type: ignore[type-var]  # generators by contract
            async for token in stream:
                began = self._streamed(action, call, began, 1)
                call.push(token)
        if not token.finish:
            raise ModelError(call.request.model, "its engine ended a stream without saying why")
        return token

    async def _forward(self, action: events.DispatchOne, engine: Forwards, call: _Call) -> tuple[None, int, int]:
        chunk = Chunk()
        began = self._clock.now()
        async with aclosing(engine.forward(call.request)) as stream:  # type: ignore[type-var]  # as above
            async for chunk in stream:
                began = self._streamed(action, call, began, chunk.tokens)
                call.push(chunk)
                await call.room()
        return None, chunk.prompt_tokens, chunk.completion_tokens

    def _streamed(self, action: events.DispatchOne, call: _Call, last: int, tokens: int) -> int:
        now = self._clock.now()
        if not call.trail.first:
            call.trail.first = max(now - last, 1) / SECOND
            self._feed(events.Started(ticket=action.ticket, seconds=call.trail.first))
        elif tokens:
            itl = self._paces.setdefault(action.engine, Pace(now)).add(now - last, tokens, now)
            if itl is not None:
                self._feed(events.Paced(engine=action.engine, itl=itl))
        return now

    def _able(self, engine: str, request: Request) -> Any:
        # A kind is also the name of the method that serves it; isinstance on a Protocol costs 20 times as much.
        running: Engine = self.pools.engine(engine)
        if request.kind not in running.kinds or not hasattr(running, request.kind):
            able = ", ".join(running.kinds)
            help = f"its backend serves: {able}; name another model in this step"
            raise ModelError(request.model, f"it cannot {request.kind}", help)
        return running

    def _broke(
        self, action: events.DispatchBatch | events.DispatchOne, began: int, model: str, error: BaseException
    ) -> None:
        # What a request got wrong, an engine says with an error of SAGE's; anything else is a defect of its own.
        fatal = isinstance(error, Exception) and not isinstance(error, SageError)
        if fatal:
            error = ModelError(model, f"its engine raised {type(error).__name__}: {error}", CLOSED)
            # Also what fails the streams that the engine had begun.
            self._errors[action.engine] = error
        if isinstance(error, Exception):
            self._errors[action.ticket] = error
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
