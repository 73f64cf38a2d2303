"""Runs the manager under a virtual clock: an event heap with modelled engines."""

from __future__ import annotations

import heapq
import itertools

from sage_core.common.clock import SECOND
from sage_core.common.records import Capacity, EngineInfo, Kind, Lane, Record
from sage_core.kernel.control_plane.events import (
    Abort,
    Action,
    ArmTimer,
    Broke,
    Cancelled,
    Completed,
    DispatchBatch,
    DispatchOne,
    EngineLost,
    EngineOpened,
    Input,
    Outline,
    Started,
    StartEngine,
    StopEngine,
    Submitted,
    Tick,
)
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.kernel.control_plane.recording import replay as replay

#: Steps at one moment that a manager may ask for; more of them are a loop without end.
RESTLESS = 1_000


class EngineModel(Record):
    """How long a modelled engine takes; all times in ns."""

    capacity: Capacity = Capacity()
    kinds: tuple[Kind, ...] = ("embed", "generate", "rerank", "tokenize")
    open: int = 0
    #: Each batch, and each row in it.
    batch: int = 1_000_000
    row: int = 100_000
    #: First token, and each further one.
    first: int = 20_000_000
    token: int = 5_000_000
    #: It cannot be opened, for this reason.
    broken: str = ""


class VirtualDriver:
    """Feeds the same manager as the asyncio driver does, from a heap of events; the same inputs, the same decisions."""

    def __init__(self, manager: ControlPlaneManager, model: EngineModel) -> None:
        self.manager = manager
        self.now = 0
        #: Every action with its time, in order.
        self.actions: list[tuple[int, Action]] = []
        self._model = model
        self._heap: list[tuple[int, int, Input]] = []
        self._numbers = itertools.count()
        self._outlines: dict[str, Outline] = {}
        self._flying: dict[int, str] = {}
        self._opening: dict[str, None] = {}
        self._up: dict[str, None] = {}
        self._tick = Tick()

    def submit(self, at: int, outline: Outline) -> None:
        """Let a request arrive."""
        self._outlines[outline.id] = outline
        self._push(at, Submitted(outline=outline))

    def cancel(self, at: int, request: str) -> None:
        """Let a caller go."""
        self._push(at, Cancelled(request=request))

    def tell(self, at: int, event: Input) -> None:
        """Let anything else happen: another policy, a pool's settings, an engine that drains."""
        self._push(at, event)

    def fail(self, ticket: int, *, pause: float = 0.0, again: bool = True, fatal: bool = False) -> None:
        """End a dispatch at this moment with an error of its engine: of this attempt, the request, or all."""
        if ticket in self._flying:
            self._push(
                self.now, Broke(ticket=ticket, seconds=0.0, reason="it broke", again=again, fatal=fatal, pause=pause)
            )

    def flying(self) -> list[int]:
        """Dispatches that have not ended, in the order in which they were sent."""
        return list(self._flying)

    def lose(self, engine: str) -> None:
        """Kill an engine at this moment; what it was working on never completes."""
        if engine in self._up:
            del self._up[engine]
            self._flying = {ticket: held for ticket, held in self._flying.items() if held != engine}
            self._push(self.now, EngineLost(engine=engine, reason=f"engine {engine} was lost"))

    def engines(self) -> list[str]:
        """Engines that are up, in the order in which they opened."""
        return list(self._up)

    def advance(self, until: int | None = None) -> None:
        """Process events up to a time, or until nothing is left to happen."""
        same = 0
        while self._heap and (until is None or self._heap[0][0] <= until):
            at = self._heap[0][0]
            same = same + 1 if at == self.now else 0
            assert same < RESTLESS, f"the manager asks to be woken at {at} again and again"
            inputs = []
            # All events of one instant are one step, in the order in which they were scheduled.
            while self._heap and self._heap[0][0] == at:
                event = heapq.heappop(self._heap)[2]
                if self._stands(event):
                    inputs.append(event)
            if inputs:
                self.now = at
                for action in self.manager.step(inputs, self.now):
                    self.actions.append((self.now, action))
                    self._do(action)
        if until is not None:
            self.now = max(self.now, until)

    def _push(self, at: int, event: Input) -> None:
        heapq.heappush(self._heap, (max(at, self.now), next(self._numbers), event))

    def _stands(self, event: Input) -> bool:
        if isinstance(event, Tick):
            return event is self._tick
        if isinstance(event, Started):
            return event.ticket in self._flying
        if isinstance(event, Completed | Broke):
            return self._flying.pop(event.ticket, None) is not None
        if isinstance(event, EngineOpened):
            # One that was stopped before it was open never is.
            if event.engine not in self._opening:
                return False
            del self._opening[event.engine]
            self._up[event.engine] = None
        return True

    def _do(self, action: Action) -> None:
        model = self._model
        if isinstance(action, StartEngine):
            self._opening[action.engine] = None
            self._push(self.now + model.open, self._opened(action.engine, action.lane))
        elif isinstance(action, StopEngine):
            self._opening.pop(action.engine, None)
            self._up.pop(action.engine, None)
        elif isinstance(action, DispatchBatch):
            self._fly(action.ticket, action.engine, model.batch + model.row * len(action.rows))
        elif isinstance(action, DispatchOne):
            self._one(action)
        elif isinstance(action, Abort):
            if action.ticket in self._flying:
                self._push(self.now, Broke(ticket=action.ticket, seconds=0.0, reason="aborted"))
        elif isinstance(action, ArmTimer):
            # The tick armed before, if there is one, no longer stands.
            self._tick = Tick()
            if action.at is not None:
                self._push(action.at, self._tick)

    def _one(self, action: DispatchOne) -> None:
        outline = self._outlines[action.request]
        if outline.kind != "generate":
            self._fly(action.ticket, action.engine, self._model.batch)
            return
        total = self._model.first + self._model.token * outline.max_tokens
        self._fly(action.ticket, action.engine, total, tokens_in=sum(outline.sizes) // 4, tokens_out=outline.max_tokens)
        self._push(self.now + self._model.first, Started(ticket=action.ticket))

    def _fly(self, ticket: int, engine: str, ns: int, tokens_in: int = 0, tokens_out: int = 0) -> None:
        self._flying[ticket] = engine
        done = Completed(ticket=ticket, seconds=ns / SECOND, tokens_in=tokens_in, tokens_out=tokens_out)
        self._push(self.now + ns, done)

    def _opened(self, engine: str, lane: Lane) -> Input:
        model = self._model
        if model.broken:
            return EngineLost(engine=engine, reason=model.broken)
        info = EngineInfo(
            id=engine, model=lane, backend="modelled", kinds=model.kinds, capacity=model.capacity, identity=lane
        )
        return EngineOpened(engine=engine, info=info)
