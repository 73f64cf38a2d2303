"""Runs the manager in real time on asyncio: feeds it what happens, does what it says, holds the payloads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from sage_core.common.clock import SECOND, Clock, SystemClock
from sage_core.common.config import ClassConfig
from sage_core.common.errors import ModelError, NoEngine, RequestRejected, UsageError
from sage_core.common.records import (
    Chunk,
    EngineInfo,
    Lane,
    ModelSpec,
    Occupancy,
    PoolSpec,
    QueueLimits,
    Request,
    ServiceClass,
    Token,
)
from sage_core.common.registry import Registry
from sage_core.common.telemetry import log
from sage_core.kernel.control_plane import events
from sage_core.kernel.control_plane.dispatches import Call, Dispatches
from sage_core.kernel.control_plane.dispatches import Trail as Trail
from sage_core.kernel.control_plane.engines import EnginePools, Held
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.kernel.control_plane.pool_specs import pool_of
from sage_core.kernel.control_plane.request_classifier import RequestClassifier

if TYPE_CHECKING:
    import numpy.typing

    Floats = numpy.typing.NDArray[numpy.float32]

#: Receives the lines decided in one instant, each with its request.
Sink = Callable[[Sequence[tuple[Request, events.Decided]]], None]


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
        self._calls: dict[str, Call] = {}
        #: The last spec of each model, and its key: digesting it for each request is dear.
        self._lanes: dict[str, tuple[ModelSpec, Lane]] = {}
        #: Tables that changed while they were served: where they would be, and where they are.
        self._moved: dict[Lane, Lane] = {}
        self._inbox: list[events.Input] = []
        self._pumping = False
        self._timer: asyncio.TimerHandle | None = None
        self._stack = AsyncExitStack()
        self._closing = False

    async def __aenter__(self) -> Driver:
        self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        self.pools = EnginePools(self._backends, self._tasks, self._engine_changed, self._held)
        self._dispatches = Dispatches(self._tasks, self.pools, self._clock, self._feed)
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
        self._dispatches.close()
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

    def serve(self, spec: ModelSpec, *, queue: QueueLimits | None = None, lane: Lane | None = None) -> PoolSpec:
        """Keep a pool for a model from here on, or change the settings and the engines of the one that is there.

        Args:
            queue: see `pool_of`.
            lane: the pool that served the model so far, and does so for its changed table: whoever waits there stays.
        """
        pool = pool_of(spec, queue=queue)
        if lane is not None and lane != pool.lane:
            self._moved[pool.lane] = lane
            pool = msgspec.structs.replace(pool, lane=lane)
        members, closed = self.pools.replace(pool.lane, spec)
        pool = msgspec.structs.replace(pool, members=members, closed=closed)
        self._feed(events.PoolSet(pool=pool))
        return pool

    def withdraw(self, lane: Lane) -> None:
        """Serve a model no longer: what waits for it ends, what runs goes on."""
        self._feed(events.PoolGone(lane=lane))

    def switch(self, policy: str, lane: Lane = "") -> None:
        """Let another policy decide, in one pool or in all that name none; the name must be known."""
        self._feed(events.PolicySet(policy=policy, lane=lane))

    def classes(self, classes: Mapping[ServiceClass, ClassConfig]) -> None:
        """Let service classes ask for this from here on; raises `ConfigError` where a duration is wrong."""
        RequestClassifier(classes)
        self._feed(events.ClassesSet(classes=dict(classes)))

    def drain(self, engine: str) -> None:
        """Send an engine nothing more, and close it when it holds nothing."""
        self._feed(events.Drain(engine=engine))

    # ------------------------------------------------------------ requests

    def _submit(self, request: Request, spec: ModelSpec, *, about: bool = False, trail: Trail | None = None) -> Call:
        if self._closing:
            raise RequestRejected("the control plane is closing")
        if request.id in self._calls:
            raise UsageError(f"request {request.id!r} is in flight already", "ids are unique among live requests")
        lane = self._lane(spec)
        if self.pools.register(lane, spec):
            self._feed(events.PoolSet(pool=pool_of(spec)))
        submitted = events.Submitted(outline=events.outline(request, lane, about=about))
        call = self._calls[request.id] = Call(request, lane, trail or Trail())
        self._feed(submitted)
        return call

    def _lane(self, spec: ModelSpec) -> Lane:
        found = self._lanes.get(spec.name)
        if found is None or found[0] is not spec:
            found = self._lanes[spec.name] = (spec, events.lane_of(spec))
        return self._moved.get(found[1], found[1])

    def _leave(self, call: Call) -> None:
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
        # What has reached a caller counts before what befell its engine in the same instant: it is not done again.
        inputs.sort(key=_is_late)
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
        self._dispatches.forget()
        if decisions and self._sink is not None:
            try:
                self._sink(decisions)
            except Exception as error:  # noqa: BLE001 - a full disk must neither fail requests nor keep engines open
                log("decisions_lost", level=logging.ERROR, error=f"{type(error).__name__}: {error}")

    def _do(self, action: events.Action) -> None:
        if isinstance(action, events.DispatchBatch):
            self._dispatches.embed(action, [(self._calls[request], index) for request, index in action.rows])
        elif isinstance(action, events.DispatchOne):
            self._dispatches.one(action, self._calls[action.request])
        elif isinstance(action, events.Fill):
            self._fill(action)
        elif isinstance(action, events.End):
            self._end(action)
        elif isinstance(action, events.Abort):
            self._dispatches.abort(action.ticket)
        elif isinstance(action, events.StartEngine):
            self.pools.start(action.engine, action.lane, action.member)
        elif isinstance(action, events.StopEngine):
            self._dispatches.unpace(action.engine)
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
        matrix = self._dispatches.results[action.ticket]
        if call.vectors is None:
            call.vectors = numpy.zeros((len(call.request.texts), matrix.shape[1]), numpy.float32)
        call.vectors[list(action.at)] = matrix[list(action.rows)]

    def _end(self, action: events.End) -> None:
        call = self._calls.pop(action.request)
        if action.outcome == "done":
            call.give(call.vectors if call.request.kind == "embed" else self._dispatches.results.get(action.ticket))
        elif action.outcome in ("rejected", "shed"):
            call.fail(RequestRejected(action.reason, action.retry_after))
        elif action.outcome == "cancelled":
            call.fail(RequestRejected("the request was cancelled"))
        elif action.outcome == "unavailable":
            call.fail(NoEngine(call.request.model, action.reason, action.retry_after))
        else:
            errors = self._dispatches.errors
            cause = errors.get(action.ticket) or errors.get(action.engine)
            call.fail(cause or ModelError(call.request.model, action.reason))

    # ------------------------------------------------------------ engines

    def _engine_changed(self, engine: str, what: EngineInfo | Occupancy | Exception) -> None:
        if isinstance(what, EngineInfo):
            self._feed(events.EngineOpened(engine=engine, info=what))
        elif isinstance(what, Occupancy):
            self._feed(events.Scraped(engine=engine, occupancy=what))
        else:
            self._dispatches.errors[engine] = what
            self._feed(events.EngineLost(engine=engine, reason=str(what)))


def _is_late(event: events.Input) -> bool:
    return type(event) is not events.Started
