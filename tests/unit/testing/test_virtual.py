"""The virtual clock: every event at its time, one step for each instant, and replay that decides the same."""

from __future__ import annotations

from collections.abc import Iterable

from sage_core.common.clock import MILLISECOND
from sage_core.common.records import Caller, Capacity, Kind
from sage_core.kernel.control_plane.events import (
    Action,
    ArmTimer,
    Broke,
    Completed,
    DispatchBatch,
    DispatchOne,
    End,
    EngineLost,
    Input,
    Instant,
    Outline,
    Started,
    StartEngine,
    StopEngine,
    Submitted,
)
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.testing.virtual import EngineModel, VirtualDriver, replay


class Recorded(ControlPlaneManager):
    """Keeps each instant and what was decided at it."""

    def __init__(self) -> None:
        super().__init__()
        self.instants: list[Instant] = []
        self.made: list[list[Action]] = []

    def step(self, inputs: Iterable[Input], now: int) -> list[Action]:
        self.instants.append(Instant(now=now, inputs=tuple(inputs)))
        self.made.append(super().step(self.instants[-1].inputs, now))
        return self.made[-1]


def request(name: str, kind: Kind = "embed", *, max_tokens: int = 0, caller: Caller = Caller()) -> Outline:
    keys = (name,) if kind == "embed" else ()
    return Outline(
        id=name, kind=kind, model="m", lane="m", caller=caller, sizes=(40,), keys=keys, max_tokens=max_tokens
    )


def times(driver: VirtualDriver, *kinds: type) -> list[tuple[int, str]]:
    return [(at, type(action).__name__) for at, action in driver.actions if isinstance(action, kinds)]


def seen(manager: Recorded, *kinds: type) -> list[tuple[int, Input]]:
    return [
        (instant.now, event) for instant in manager.instants for event in instant.inputs if isinstance(event, kinds)
    ]


def test_engines_take_the_time_of_their_model() -> None:
    model = EngineModel(open=5, batch=100, row=10, first=30, token=7)
    driver = VirtualDriver(ControlPlaneManager(), model)
    driver.submit(0, request("e"))
    driver.submit(1_000, request("r", "rerank"))
    driver.submit(2_000, request("g", "generate", max_tokens=3))
    driver.advance()
    assert times(driver, StartEngine, DispatchBatch, DispatchOne, End) == [
        (0, "StartEngine"),
        (5, "DispatchBatch"),
        (115, "End"),
        (1_000, "DispatchOne"),
        (1_100, "End"),
        (2_000, "DispatchOne"),
        (2_051, "End"),
    ]
    assert driver.now == 2_051


def test_the_first_token_comes_before_the_end_with_its_counts() -> None:
    manager = Recorded()
    driver = VirtualDriver(manager, EngineModel(first=30, token=7))
    driver.submit(0, request("g", "generate", max_tokens=3))
    driver.advance()
    assert seen(manager, Started, Completed) == [
        (30, Started(ticket=1)),
        (51, Completed(ticket=1, seconds=51e-9, tokens_in=10, tokens_out=3)),
    ]


def test_what_happens_at_one_time_is_one_step_in_order() -> None:
    manager = Recorded()
    driver = VirtualDriver(manager, EngineModel(open=9))
    driver.submit(3, request("b"))
    driver.submit(2, request("a"))
    driver.submit(3, request("c"))
    driver.cancel(3, "b")
    driver.advance(3)
    names = [[event.outline.id for event in each.inputs if isinstance(event, Submitted)] for each in manager.instants]
    assert names[-1] == ["b", "c"]
    assert [instant.now for instant in manager.instants] == [2, 3]
    assert len(manager.instants[-1].inputs) == 3


def test_time_moves_to_where_it_was_advanced_and_never_back() -> None:
    driver = VirtualDriver(ControlPlaneManager(), EngineModel())
    driver.advance(50)
    driver.submit(10, request("late"))
    driver.advance()
    assert times(driver, StartEngine) == [(50, "StartEngine")]
    assert driver.now > 50


def test_a_timer_fires_once_and_only_the_one_armed_last() -> None:
    manager = Recorded()
    capacity = Capacity(sequences=2)
    driver = VirtualDriver(manager, EngineModel(capacity=capacity, batch=50 * MILLISECOND, row=0))
    driver.submit(0, request("first"))
    driver.submit(1, request("second"))
    driver.submit(2, request("third", caller=Caller(remaining=40)))
    driver.advance()
    armed = [(at, action.at) for at, action in driver.actions if isinstance(action, ArmTimer)]
    # The deadline of the third brings the timer forward; what was armed first never fires.
    assert armed[:2] == [(1, 1 + 3 * MILLISECOND), (2, 12)]
    ticks = [instant.now for instant in manager.instants if "Tick" in {type(each).__name__ for each in instant.inputs}]
    assert ticks == [12]


def test_an_engine_that_cannot_open_is_never_up() -> None:
    driver = VirtualDriver(ControlPlaneManager(), EngineModel(broken="no weights"))
    driver.submit(0, request("a"))
    driver.advance()
    assert driver.engines() == []
    assert [(action.outcome, action.reason) for _, action in driver.actions if isinstance(action, End)] == [
        ("failed", "no weights")
    ]


def test_what_a_lost_engine_held_never_completes() -> None:
    manager = Recorded()
    driver = VirtualDriver(manager, EngineModel(batch=100, row=0))
    driver.submit(0, request("a"))
    driver.advance(50)
    assert driver.engines() == ["m#1"]
    driver.lose("m#1")
    driver.lose("m#1")
    driver.advance()
    assert driver.engines() == ["m#2"]
    assert [at for at, _ in seen(manager, EngineLost)] == [50]
    assert [event.ticket for _, event in seen(manager, Completed) if isinstance(event, Completed)] == [2]


def test_an_engine_that_the_manager_closes_is_down() -> None:
    class Closing(ControlPlaneManager):
        def step(self, inputs: Iterable[Input], now: int) -> list[Action]:
            closed = [StopEngine(engine="m#1")] if now == 500 else []
            return [*super().step(inputs, now), *closed]

    driver = VirtualDriver(Closing(), EngineModel(batch=100, row=0))
    driver.submit(0, request("a"))
    driver.cancel(500, "a")
    driver.advance(499)
    assert driver.engines() == ["m#1"]
    driver.advance()
    assert driver.engines() == []


def test_a_cancelled_dispatch_stops_at_once() -> None:
    manager = Recorded()
    driver = VirtualDriver(manager, EngineModel(first=30, token=7))
    driver.submit(0, request("g", "generate", max_tokens=1_000))
    driver.cancel(40, "g")
    driver.advance()
    assert driver.now == 40
    assert [event for _, event in seen(manager, Broke)] == [Broke(ticket=1, seconds=0.0, reason="aborted")]
    assert manager.held == 0


def test_replay_of_what_was_recorded_decides_the_same() -> None:
    manager = Recorded()
    driver = VirtualDriver(manager, EngineModel())
    for n in range(20):
        driver.submit(n * MILLISECOND // 3, request(f"e{n % 7}-{n}"))
        driver.submit(n * MILLISECOND // 2, request(f"g{n}", "generate", max_tokens=n))
    driver.cancel(4 * MILLISECOND, "g9")
    driver.advance()
    assert len(manager.instants) > 40
    assert list(replay(manager.instants, ControlPlaneManager())) == manager.made
    assert list(replay(manager.instants[1:], ControlPlaneManager())) != manager.made[1:]
