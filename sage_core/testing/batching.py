"""Traffic over modelled engines that batch continuously, under a virtual clock: for comparing policies in seconds.

The manager and the policy are the real ones. An engine computes in steps, each of a chunk of prompts and one token for
every stream, and a step takes longer the more it holds: so what is sent to an engine slows what runs there.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from sage_core.common.clock import SECOND
from sage_core.common.contracts import Scheduler
from sage_core.common.records import Caller, Capacity, EngineInfo, Kind, PoolSpec, QueueLimits, Record, ServiceClass
from sage_core.kernel.control_plane import events
from sage_core.kernel.control_plane.fleet import Selects
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.kernel.control_plane.pace import EVERY

LANE = "modelled"
#: Bytes that the classifier takes for a token before it has learnt any.
BYTES = 4


class Call(Record):
    """A request of a workload; times in seconds."""

    id: str
    at: float
    tokens_in: int = 256
    tokens_out: int = 128
    #: What it may write at most; 0 is what it writes.
    limit: int = 0
    kind: Kind = "generate"
    tenant: str = "local"
    service_class: ServiceClass = "interactive"
    ttft: float | None = None
    tpot: float | None = None
    priority: int = 0
    prefix: tuple[int, ...] = ()
    #: When its caller goes away.
    gone: float | None = None


class Answer(Record):
    """What became of a call; times in seconds, None where it did not come to that."""

    call: Call
    outcome: events.Outcome
    engine: str = ""
    #: From arrival to dispatch, to the first token, and to the end.
    wait: float | None = None
    ttft: float | None = None
    total: float | None = None
    retry_after: float | None = None

    @property
    def tpot(self) -> float | None:
        """Mean seconds between its output tokens."""
        if self.ttft is None or self.total is None or self.call.tokens_out < 2:
            return None
        return (self.total - self.ttft) / (self.call.tokens_out - 1)

    @property
    def met(self) -> bool:
        """Whether it was answered within what was asked for."""
        call = self.call
        if self.outcome != "done" or (call.ttft is not None and (self.ttft is None or self.ttft > call.ttft)):
            return False
        return call.tpot is None or self.tpot is None or self.tpot <= call.tpot


class BatchingModel(Record):
    """An engine in numbers; times in ns. The defaults are near to a model of 8 billion parameters on one H100."""

    capacity: Capacity = Capacity(sequences=256, prefill_tokens=4_096, kv_tokens=400_000)
    #: Tokens that one step computes at most.
    chunk: int = 2_048
    #: Each step; each token computed in it; each token of context its streams hold; each stream.
    step: int = 5_600_000
    token: int = 20_500
    context: int = 70
    stream: int = 15_000
    #: Each padded token of an embedding batch.
    embed: int = 10_000
    price: float = 1.0


class Simulation:
    """Runs calls through a manager with one pool of modelled engines.

    Args:
        policies: makes the scheduler of a name, which is empty until `switch`.
        engines: one model for each engine.
    """

    def __init__(
        self,
        policies: Callable[[str], Scheduler],
        engines: Sequence[BatchingModel],
        *,
        selector: Selects | None = None,
        queue: QueueLimits | None = None,
    ) -> None:
        self.manager = ControlPlaneManager(policies, selector)
        self.now = 0
        self.answers: dict[str, Answer] = {}
        #: The decision log, in order.
        self.decisions: list[events.Decided] = []
        #: Request and engine of every dispatch that is no batch, in order.
        self.dispatched: list[tuple[str, str]] = []
        self._models = list(engines)
        self._numbers = itertools.count()
        self._heap: list[tuple[int, int, events.Input | _Engine]] = []
        self._calls: dict[str, Call] = {}
        self._engines: dict[str, _Engine] = {}
        self._tickets: dict[int, _Stream] = {}
        self._first: dict[str, int] = {}
        self._sent: dict[str, tuple[int, str]] = {}
        self._tick = events.Tick()
        count = len(self._models)
        limits = queue or QueueLimits()
        self._push(0, events.PoolSet(pool=PoolSpec(lane=LANE, model=LANE, members=count, min=count, queue=limits)))

    def submit(self, calls: Iterable[Call]) -> None:
        """Let calls arrive, and their callers go away."""
        for call in calls:
            self._calls[call.id] = call
            self._push(round(call.at * SECOND), events.Submitted(outline=_outline(call)))
            if call.gone is not None:
                self._push(round(call.gone * SECOND), events.Cancelled(request=call.id))

    def switch(self, at: float, policy: str) -> None:
        """Change the policy at a time (s)."""
        self._push(round(at * SECOND), events.PolicySet(policy=policy, lane=LANE))

    def lose(self, at: float, engine: str) -> None:
        """Kill an engine at a time (s)."""
        self._push(round(at * SECOND), events.EngineLost(engine=engine, reason=f"engine {engine} was lost"))

    def run(self, until: float | None = None) -> list[Answer]:
        """Process everything up to a time (s), or until nothing is left to happen; the answers so far."""
        while self._heap and (until is None or self._heap[0][0] <= until * SECOND):
            self.now = at = self._heap[0][0]
            inputs: list[events.Input] = []
            # All that happens in one instant is one step of the manager, in the order in which it was scheduled.
            while self._heap and self._heap[0][0] == at:
                event = heapq.heappop(self._heap)[2]
                if isinstance(event, _Engine):
                    inputs.extend(self._stepped(event))
                elif not isinstance(event, events.Tick) or event is self._tick:
                    inputs.append(event)
            for event in inputs:
                if isinstance(event, events.EngineLost) and (lost := self._engines.pop(event.engine, None)):
                    lost.gone = True
            if inputs:
                for action in self.step(inputs, at):
                    self._do(action)
        return list(self.answers.values())

    def step(self, inputs: Sequence[events.Input], at: int) -> list[events.Action]:
        """Let the manager decide; a subclass may look on."""
        return self.manager.step(inputs, at)

    # ------------------------------------------------------------ inside

    def _push(self, at: int, event: events.Input | _Engine) -> None:
        heapq.heappush(self._heap, (max(at, self.now), next(self._numbers), event))

    def _do(self, action: events.Action) -> None:
        if isinstance(action, events.StartEngine):
            model = self._models[action.member]
            self._engines[action.engine] = _Engine(action.engine, model)
            info = EngineInfo(
                id=action.engine,
                model=LANE,
                backend="modelled",
                kinds=("generate", "embed"),
                capacity=model.capacity,
                identity=LANE,
                price=model.price,
            )
            self._push(self.now, events.EngineOpened(engine=action.engine, info=info))
        elif isinstance(action, events.DispatchOne):
            self._one(action)
        elif isinstance(action, events.DispatchBatch):
            model = self._engines[action.engine].model
            longest = max(self._calls[request].tokens_in for request, _ in action.rows)
            took = model.step + model.embed * longest * len(action.rows)
            for request in dict.fromkeys(request for request, _ in action.rows):
                self._sent.setdefault(request, (self.now, action.engine))
            tokens = sum(self._calls[request].tokens_in for request, _ in action.rows)
            done = events.Completed(ticket=action.ticket, seconds=took / SECOND, tokens_in=tokens)
            self._push(self.now + took, done)
        elif isinstance(action, events.Abort):
            stream = self._tickets.pop(action.ticket, None)
            if stream is not None:
                if stream.engine in self._engines:
                    self._engines[stream.engine].drop(stream)
                self._push(self.now, events.Broke(ticket=action.ticket, seconds=0.0, reason="aborted"))
        elif isinstance(action, events.Decided):
            self.decisions.append(action)
        elif isinstance(action, events.End):
            self._end(action)
        elif isinstance(action, events.ArmTimer):
            self._tick = events.Tick()
            if action.at is not None:
                self._push(action.at, self._tick)

    def _one(self, action: events.DispatchOne) -> None:
        engine, call = self._engines[action.engine], self._calls[action.request]
        self.dispatched.append((action.request, action.engine))
        self._sent[action.request] = (self.now, action.engine)
        stream = self._tickets[action.ticket] = _Stream(action.ticket, action.engine, call, self.now)
        engine.prompts.append(stream)
        if not engine.busy:
            self._start(engine)

    def _start(self, engine: _Engine) -> None:
        took = engine.begin(self.now)
        if took:
            self._push(self.now + took, engine)

    def _stepped(self, engine: _Engine) -> list[events.Input]:
        if engine.gone:
            return []
        found: list[events.Input] = []
        firsts, done, pace = engine.end(self.now)
        for stream in firsts:
            self._first[stream.call.id] = self.now
            found.append(events.Started(ticket=stream.ticket, seconds=(self.now - stream.since) / SECOND))
        for stream in done:
            if self._tickets.pop(stream.ticket, None) is not None:
                seconds, call = (self.now - stream.since) / SECOND, stream.call
                found.append(
                    events.Completed(
                        ticket=stream.ticket, seconds=seconds, tokens_in=call.tokens_in, tokens_out=call.tokens_out
                    )
                )
        if pace is not None:
            found.append(events.Paced(engine=engine.name, itl=pace))
        self._start(engine)
        return found

    def _end(self, action: events.End) -> None:
        call = self._calls[action.request]
        start = round(call.at * SECOND)
        sent, engine = self._sent.get(call.id, (None, ""))
        first = self._first.get(call.id)
        self.answers[call.id] = Answer(
            call=call,
            outcome=action.outcome,
            engine=engine,
            wait=None if sent is None else (sent - start) / SECOND,
            ttft=None if first is None else (first - start) / SECOND,
            total=(self.now - start) / SECOND,
            retry_after=action.retry_after,
        )


class _Stream:
    __slots__ = ("call", "dead", "engine", "joined", "left", "since", "ticket")

    def __init__(self, ticket: int, engine: str, call: Call, now: int) -> None:
        self.ticket = ticket
        self.engine = engine
        self.call = call
        self.since = now
        #: Prompt tokens still to be computed; the engine's step at which its first token came.
        self.left = call.tokens_in
        self.joined: int | None = None
        self.dead = False


class _Engine:
    """Streams in continuous batching: a decode step costs a heap's look and no loop over the streams."""

    def __init__(self, name: str, model: BatchingModel) -> None:
        self.name = name
        self.model = model
        self.prompts: deque[_Stream] = deque()
        self.busy = self.gone = False
        self._count = 0
        self._streams = 0
        self._context = 0
        self._ends: list[tuple[int, int, _Stream]] = []
        self._began = self._told = 0
        self._gaps = self._tokens = 0
        self._ready: list[_Stream] = []

    def begin(self, now: int) -> int:
        """Start a step and return its length, 0 where there is nothing to do."""
        model, budget = self.model, self.model.chunk - self._streams
        self._ready = []
        computed = 0
        while self.prompts and computed < budget:
            stream = self.prompts[0]
            if not stream.dead:
                part = min(stream.left, budget - computed)
                stream.left -= part
                computed += part
                if stream.left:
                    break
                self._ready.append(stream)
            self.prompts.popleft()
        self.busy = bool(computed or self._streams)
        self._began = now
        if not self.busy:
            return 0
        tokens = computed + self._streams
        return model.step + model.token * tokens + model.context * self._context + model.stream * self._streams

    def end(self, now: int) -> tuple[list[_Stream], list[_Stream], float | None]:
        """Finish a step: the streams whose first token came, those that are done, and the pace when it is due."""
        self._count += 1
        self._gaps += (now - self._began) * self._streams
        self._tokens += self._streams
        self._context += self._streams
        done = []
        while self._ends and self._ends[0][0] <= self._count:
            stream = heapq.heappop(self._ends)[2]
            if not stream.dead:
                done.append(stream)
                self._leave(stream)
        firsts = [stream for stream in self._ready if not stream.dead]
        for stream in firsts:
            stream.joined = self._count
            self._streams += 1
            self._context += stream.call.tokens_in + 1
            if stream.call.tokens_out <= 1:
                done.append(stream)
                self._leave(stream)
            else:
                heapq.heappush(self._ends, (self._count + stream.call.tokens_out - 1, stream.ticket, stream))
        pace = None
        if self._tokens and now - self._told >= EVERY:
            pace = self._gaps / self._tokens / SECOND
            self._told, self._gaps, self._tokens = now, 0, 0
        return firsts, done, pace

    def drop(self, stream: _Stream) -> None:
        """Forget a stream that was aborted."""
        stream.dead = True
        if stream.joined is not None:
            self._leave(stream)

    def _leave(self, stream: _Stream) -> None:
        assert stream.joined is not None
        self._streams -= 1
        self._context -= stream.call.tokens_in + 1 + self._count - stream.joined


def _outline(call: Call) -> events.Outline:
    def ns(seconds: float | None) -> int | None:
        return None if seconds is None else round(seconds * SECOND)

    caller = Caller(
        tenant=call.tenant,
        service_class=call.service_class,
        remaining=ns(call.ttft),
        ttft=ns(call.ttft),
        tpot=ns(call.tpot),
        priority=call.priority,
    )
    return events.Outline(
        id=call.id,
        kind=call.kind,
        model=LANE,
        lane=LANE,
        caller=caller,
        sizes=(max(1, call.tokens_in - 2) * BYTES,),
        keys=(call.id,) if call.kind == "embed" else (),
        max_tokens=call.limit or call.tokens_out,
        prefix=call.prefix,
    )
