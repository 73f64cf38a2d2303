"""Whatever happens to requests, engines, pools and policies: each request ends once, and each credit comes back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import given, note, settings
from hypothesis import strategies as st

from sage_core.common.clock import MILLISECOND, SECOND
from sage_core.common.contracts import Fleet, Scheduler
from sage_core.common.policies import KeyedScheduler
from sage_core.common.records import (
    Caller,
    Capacity,
    Decision,
    Dispatch,
    Event,
    Idle,
    Kind,
    PoolSpec,
    Queued,
    QueueLimits,
    Shed,
    Verdict,
    Work,
)
from sage_core.kernel.control_plane.events import (
    DispatchBatch,
    DispatchOne,
    Drain,
    End,
    Fill,
    PolicySet,
    PoolGone,
    PoolSet,
    Tick,
)
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.testing.virtual import EngineModel, VirtualDriver
from tests.unit.kernel.control_plane.test_manager import embed, ends, of, single


class LastFirst:
    def rank(self, work: Work) -> float:
        return -float(work.arrival)


class Hesitant:
    """Sends each work a millisecond after it came, or later, and gives every fifth up."""

    def __init__(self) -> None:
        self._works: dict[str, tuple[int, Work]] = {}
        self._count = 0

    def submit(self, work: Work, fleet: Fleet, now: int) -> Verdict:
        self._works[work.id] = now + MILLISECOND, work
        return Queued()

    def next(self, fleet: Fleet, now: int) -> Decision:
        for due, work in list(self._works.values()):
            if due > now:
                return Idle(until=due)
            place = fleet.pick(work)
            if place is not None:
                del self._works[work.id]
                self._count += 1
                if self._count % 5 == 0:
                    return Shed(work=work, reason="the fifth")
                return Dispatch(work=work, place=place, why="it was time")
        return Idle()

    def observe(self, event: Event, now: int) -> None:
        work = getattr(event, "work", None)
        if work is not None and type(event).__name__ == "Withdrawn":
            self._works.pop(work.id, None)


def scheduler(name: str) -> Scheduler:
    if name == "hesitant":
        return Hesitant()
    return KeyedScheduler(LastFirst()) if name == "last" else KeyedScheduler(First())


class First:
    def rank(self, work: Work) -> float:
        return float(work.arrival)


waits = st.integers(0, 6)
texts = st.lists(st.sampled_from([c * n for c in "abcdef" for n in (1, 40, 400, 3_000)]), max_size=30)
callers = st.builds(
    Caller,
    tenant=st.sampled_from(["a", "b"]),
    remaining=st.sampled_from([None, 0, 2 * MILLISECOND, SECOND]),
    ttft=st.sampled_from([None, MILLISECOND]),
    tpot=st.sampled_from([None, MILLISECOND, 5 * MILLISECOND]),
)
pools = st.builds(
    PoolSpec,
    lane=st.just("m"),
    model=st.just("m"),
    members=st.integers(1, 3),
    min=st.integers(0, 2),
    idle=st.sampled_from([None, 0, 2 * MILLISECOND]),
    grow=st.sampled_from([0.0, 0.01, 5.0]),
    queue=st.builds(
        QueueLimits,
        requests=st.sampled_from([0, 2, 5]),
        bytes=st.sampled_from([0, 100]),
        wait=st.sampled_from([None, 0, 3 * MILLISECOND, 10 * SECOND]),
    ),
    policy=st.sampled_from(["", "last", "hesitant"]),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("embed"), waits, st.tuples(texts, callers)),
        st.tuples(st.just("single"), waits, st.tuples(st.sampled_from(["generate", "rerank", "tokenize"]), callers)),
        st.tuples(st.just("cancel"), waits, st.integers(0, 40)),
        st.tuples(st.just("lose"), waits, st.integers(0, 2)),
        st.tuples(st.just("again"), waits, st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.002]))),
        st.tuples(st.just("fail"), waits, st.tuples(st.integers(0, 3), st.booleans())),
        st.tuples(st.just("drain"), waits, st.integers(0, 2)),
        st.tuples(st.just("pool"), waits, pools),
        st.tuples(st.just("gone"), waits, st.none()),
        st.tuples(st.just("policy"), waits, st.sampled_from(["first", "last", "hesitant"])),
        st.tuples(st.just("tick"), waits, st.none()),
    ),
    max_size=40,
)
Plan = Sequence[tuple[str, int, Any]]


def perform(driver: VirtualDriver, plan: Plan) -> dict[str, int]:
    """Do what the plan says; returns the texts of each request."""
    rows: dict[str, int] = {}
    at = 0
    for number, (what, wait, detail) in enumerate(plan):
        at += wait * MILLISECOND // 4
        name = f"r{number}"
        if what == "embed":
            rows[name] = len(detail[0])
            driver.submit(at, embed(name, detail[0], detail[1]))
            continue
        if what == "single":
            rows[name] = 0
            driver.submit(at, chat(name, *detail))
            continue
        driver.advance(at)
        engines, flying = driver.engines(), driver.flying()
        if what == "cancel":
            driver.cancel(at, f"r{detail}")
        elif what == "lose" and detail < len(engines):
            driver.lose(engines[detail])
        elif what == "again" and detail[0] < len(flying):
            driver.fail(flying[detail[0]], pause=detail[1])
        elif what == "fail" and detail[0] < len(flying):
            driver.fail(flying[detail[0]], again=False, fatal=detail[1])
        elif what == "drain" and detail < len(engines):
            driver.tell(at, Drain(engine=engines[detail]))
        elif what == "pool":
            driver.tell(at, PoolSet(pool=detail))
        elif what == "gone":
            driver.tell(at, PoolGone(lane="m"))
        elif what == "policy":
            driver.tell(at, PolicySet(policy=detail))
        elif what == "tick":
            driver.tell(at, Tick())
    return rows


def chat(name: str, kind: Kind, caller: Caller) -> Any:
    return single(name, kind, caller=caller)


@settings(max_examples=120, deadline=None)
@given(steps, st.integers(1, 3), st.integers(0, 3), st.booleans())
def test_every_request_ends_once_and_every_credit_returns(
    plan: Plan, sequences: int, opening: int, tight: bool
) -> None:
    capacity = Capacity(
        sequences=sequences,
        batch_tokens=500,
        batch_rows=8,
        context=600,
        prefill_tokens=20 if tight else 0,
        kv_tokens=30 if tight else 0,
    )
    model = EngineModel(
        capacity=capacity, open=opening * MILLISECOND, batch=MILLISECOND, first=MILLISECOND, token=MILLISECOND
    )
    manager = ControlPlaneManager(scheduler)
    driver = VirtualDriver(manager, model)
    rows = perform(driver, plan)
    driver.advance(driver.now + 600 * SECOND)

    for what, wait, detail in plan:
        note(f"{wait} {what} {detail!r:.200}")
    note(f"{sequences} sequences, opening {opening}, tight {tight}")
    assert Counter(end.request for end in of(driver, End)) == dict.fromkeys(rows, 1)
    assert manager.held == 0
    assert manager.faults == ()
    for pool in manager.pools.values():
        assert (pool.line, pool.room, pool.bytes, pool.backlog.cost) == ({}, {}, 0, 0.0)
        assert set(driver.engines()) == {name for name, each in pool.engines.items() if each.state == "up"}
        for engine in pool.engines:
            place = manager.place(engine)
            if place is not None:
                held = place.running, place.load, place.prefill, place.context, place.tpot, place.batch
                assert held == (0, 0.0, 0, 0, 0.0, 0)
    outcome = ends(driver)
    filled = Counter((fill.request, place) for fill in of(driver, Fill) for place in fill.at)
    assert all(count == 1 for count in filled.values())
    for name, count in rows.items():
        if outcome[name] == "done":
            assert sum(request == name for request, _ in filled) == count
    tickets = [action.ticket for action in of(driver, DispatchBatch)]
    tickets += [action.ticket for action in of(driver, DispatchOne)]
    assert len(tickets) == len(set(tickets))
