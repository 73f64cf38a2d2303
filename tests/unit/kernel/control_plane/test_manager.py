"""The state machine: who is dispatched when, what a batch holds, and that every request ends exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import pytest

from sage_core.common.clock import MILLISECOND, SECOND
from sage_core.common.contracts import Fleet
from sage_core.common.errors import UsageError
from sage_core.common.policies import KeyedScheduler
from sage_core.common.records import (
    Caller,
    Capacity,
    Decision,
    EngineInfo,
    Event,
    Kind,
    Queued,
    Rejected,
    Shed,
    Verdict,
    Work,
)
from sage_core.kernel.control_plane.events import (
    Abort,
    Action,
    Broke,
    Completed,
    Decided,
    DispatchBatch,
    DispatchOne,
    End,
    EngineOpened,
    Fill,
    Outline,
    StartEngine,
    Submitted,
    Tick,
)
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.testing.virtual import EngineModel, VirtualDriver

T = TypeVar("T", bound=Action)


def embed(name: str, texts: Sequence[str], caller: Caller = Caller()) -> Outline:
    return Outline(
        id=name, kind="embed", model="m", lane="m", caller=caller, sizes=tuple(map(len, texts)), keys=tuple(texts)
    )


def single(
    name: str, kind: Kind = "generate", size: int = 40, max_tokens: int = 4, caller: Caller = Caller()
) -> Outline:
    return Outline(id=name, kind=kind, model="m", lane="m", caller=caller, sizes=(size,), max_tokens=max_tokens)


def of(driver: VirtualDriver, kind: type[T]) -> list[T]:
    return [action for _, action in driver.actions if isinstance(action, kind)]


def ends(driver: VirtualDriver) -> dict[str, str]:
    return {end.request: end.outcome for end in of(driver, End)}


def drive(*outlines: Outline, model: EngineModel | None = None, at: int = 0) -> VirtualDriver:
    driver = VirtualDriver(ControlPlaneManager(), model or EngineModel())
    for outline in outlines:
        driver.submit(at, outline)
    driver.advance()
    return driver


class TestBatches:
    def test_requests_of_one_instant_share_a_batch_on_an_idle_engine(self) -> None:
        driver = drive(*(embed(f"r{n}", [f"text {n}"]) for n in range(64)))
        assert [len(batch.rows) for batch in of(driver, DispatchBatch)] == [64]
        assert Counter(ends(driver).values()) == {"done": 64}

    def test_an_idle_engine_does_not_wait_for_company(self) -> None:
        driver = VirtualDriver(ControlPlaneManager(), EngineModel(open=5))
        driver.submit(0, embed("first", ["a"]))
        driver.submit(100, embed("second", ["b"]))
        driver.advance(100)
        assert [(at, action.rows) for at, action in driver.actions if isinstance(action, DispatchBatch)] == [
            (5, (("first", 0),))
        ]

    def test_what_arrives_while_the_engine_works_is_batched_when_it_is_free(self) -> None:
        driver = VirtualDriver(ControlPlaneManager(), EngineModel(batch=10 * MILLISECOND, row=0))
        driver.submit(0, embed("first", ["a"]))
        for n in range(20):
            driver.submit(MILLISECOND + n, embed(f"later{n}", [f"text {n}"]))
        driver.advance()
        assert [len(batch.rows) for batch in of(driver, DispatchBatch)] == [1, 20]

    def test_a_batch_beside_another_one_lingers_three_milliseconds(self) -> None:
        model = EngineModel(capacity=Capacity(sequences=2), batch=50 * MILLISECOND, row=0)
        driver = VirtualDriver(ControlPlaneManager(), model)
        driver.submit(0, embed("first", ["a"]))
        driver.submit(MILLISECOND, embed("second", ["b"]))
        driver.submit(2 * MILLISECOND, embed("third", ["c"]))
        driver.advance()
        dispatched = [(at, len(action.rows)) for at, action in driver.actions if isinstance(action, DispatchBatch)]
        assert dispatched == [(0, 1), (4 * MILLISECOND, 2)]

    def test_a_near_deadline_shortens_the_linger(self) -> None:
        model = EngineModel(capacity=Capacity(sequences=2), batch=50 * MILLISECOND, row=0)
        driver = VirtualDriver(ControlPlaneManager(), model)
        driver.submit(0, embed("first", ["a"]))
        driver.submit(MILLISECOND, embed("second", ["b"], Caller(remaining=4 * MILLISECOND)))
        driver.advance()
        assert [at for at, action in driver.actions if isinstance(action, DispatchBatch)] == [0, 2 * MILLISECOND]

    def test_no_batch_exceeds_the_budget_of_padded_tokens_or_rows(self) -> None:
        capacity = Capacity(batch_tokens=600, batch_rows=16)
        driver = VirtualDriver(ControlPlaneManager(), EngineModel(capacity=capacity))
        sizes = {f"{n}" + "x" * (n * 7 % 900): n for n in range(300)}
        driver.submit(0, embed("bulk", list(sizes)))
        driver.advance()
        longest = []
        for batch in of(driver, DispatchBatch):
            tokens = [len(list(sizes)[index]) // 4 + 3 for _, index in batch.rows]
            assert len(tokens) <= 16
            assert len(tokens) == 1 or max(tokens) * len(tokens) <= 600
            assert len(tokens) == 1 or max(tokens) * len(tokens) - sum(tokens) <= max(256, 0.2 * sum(tokens))
            longest.append(max(tokens))
        assert longest == sorted(longest)
        assert ends(driver) == {"bulk": "done"}

    def test_a_query_waits_for_one_slice_of_a_bulk_request_at_most_under_a_policy_that_prefers_it(self) -> None:
        class Interactive:
            def rank(self, work: Work) -> float:
                return 0.0 if work.service_class == "interactive" else 1.0

        model = EngineModel(capacity=Capacity(batch_tokens=400), batch=10 * MILLISECOND, row=0)
        driver = VirtualDriver(ControlPlaneManager(lambda name: KeyedScheduler(Interactive())), model)
        driver.submit(0, embed("bulk", [f"document {n}" for n in range(2_048)], Caller(service_class="batch")))
        driver.submit(15 * MILLISECOND, embed("query", ["what is it"], Caller(service_class="interactive")))
        driver.advance()
        ended = {action.request: at for at, action in driver.actions if isinstance(action, End)}
        assert ended["query"] == 30 * MILLISECOND
        assert ended["bulk"] > 100 * MILLISECOND


class TestCoalescing:
    def test_equal_texts_are_computed_once_and_reach_everyone(self) -> None:
        driver = drive(embed("a", ["x", "y", "x"]), embed("b", ["y", "z"]))
        (batch,) = of(driver, DispatchBatch)
        assert len(batch.rows) == 3
        filled = Counter((fill.request, at) for fill in of(driver, Fill) for at in fill.at)
        assert filled == {("a", 0): 1, ("a", 1): 1, ("a", 2): 1, ("b", 0): 1, ("b", 1): 1}

    def test_a_text_in_the_engine_is_joined_and_costs_nothing(self) -> None:
        driver = VirtualDriver(ControlPlaneManager(), EngineModel(batch=10 * MILLISECOND))
        driver.submit(0, embed("a", ["x"]))
        driver.submit(MILLISECOND, embed("b", ["x"]))
        driver.advance()
        assert len(of(driver, DispatchBatch)) == 1
        assert [(line.request, line.rows, line.outcome) for line in of(driver, Decided)] == [
            ("a", 1, "done"),
            ("b", 1, "done"),
        ]

    def test_tenants_do_not_share_rows(self) -> None:
        driver = drive(embed("a", ["x"], Caller(tenant="one")), embed("b", ["x"], Caller(tenant="two")))
        assert sum(len(batch.rows) for batch in of(driver, DispatchBatch)) == 2

    def test_a_row_that_another_request_shares_survives_a_cancel(self) -> None:
        driver = VirtualDriver(ControlPlaneManager(), EngineModel(batch=10 * MILLISECOND, row=0))
        driver.submit(0, embed("busy", ["w"]))
        driver.submit(1, embed("a", ["x", "only mine"]))
        driver.submit(2, embed("b", ["x"]))
        driver.cancel(3, "a")
        driver.advance()
        assert [len(batch.rows) for batch in of(driver, DispatchBatch)] == [1, 1]
        assert ends(driver) == {"busy": "done", "a": "cancelled", "b": "done"}

    def test_a_batch_is_stopped_when_the_last_of_those_who_wait_for_it_has_gone(self) -> None:
        driver = VirtualDriver(ControlPlaneManager(), EngineModel(batch=10 * MILLISECOND, row=0))
        driver.submit(0, embed("a", ["x", "y"]))
        driver.submit(MILLISECOND, embed("b", ["x"]))
        driver.cancel(2 * MILLISECOND, "a")
        driver.advance(2 * MILLISECOND)
        assert of(driver, Abort) == []
        driver.cancel(3 * MILLISECOND, "b")
        driver.submit(4 * MILLISECOND, embed("c", ["x"]))
        driver.advance()
        assert len(of(driver, Abort)) == 1
        assert ends(driver) == {"a": "cancelled", "b": "cancelled", "c": "done"}
        assert driver.manager.held == 0


class TestFailures:
    def test_an_engine_that_does_not_open_fails_its_requests_with_the_reason(self) -> None:
        driver = drive(embed("a", ["x"]), single("b"), model=EngineModel(broken="no weights"))
        assert [(end.request, end.outcome, end.reason) for end in of(driver, End)] == [
            ("a", "failed", "no weights"),
            ("b", "failed", "no weights"),
        ]
        assert driver.manager.held == 0

    def test_a_lost_engine_is_replaced_and_its_work_done_again_once(self) -> None:
        driver = VirtualDriver(ControlPlaneManager(), EngineModel(batch=10 * MILLISECOND))
        driver.submit(0, embed("a", ["x"]))
        driver.advance(MILLISECOND)
        driver.lose("m#1")
        driver.advance(2 * MILLISECOND)
        assert [start.engine for start in of(driver, StartEngine)] == ["m#1", "m#2"]
        driver.lose("m#2")
        driver.advance()
        assert [(end.outcome, end.reason) for end in of(driver, End)] == [("failed", "engine m#2 was lost")]
        assert driver.manager.held == 0

    def test_what_a_known_culprit_took_along_is_done_again_however_often(self) -> None:
        manager = ControlPlaneManager()
        capacity = Capacity(sequences=4)
        manager.step([Submitted(outline=single(name, "rerank")) for name in ("bad1", "bad2", "bad3", "good")], 0)
        running: dict[str, DispatchOne] = {}
        ended: list[tuple[str, str]] = []
        for turn in range(1, 5):
            engine = f"m#{turn}"
            info = EngineInfo(id=engine, model="m", backend="b", kinds=("rerank",), capacity=capacity, identity="i")
            # Engines that break down one after the other are opened again after a while only.
            later = turn * 60 * SECOND
            manager.step([Tick()], later)
            actions = manager.step([EngineOpened(engine=engine, info=info)], later)
            running = {action.request: action for action in actions if isinstance(action, DispatchOne)}
            assert {action.engine for action in running.values()} == {engine}
            if turn < 4:
                ticket = running[f"bad{turn}"].ticket
                actions = manager.step([Broke(ticket=ticket, seconds=0, reason="poison", fatal=True)], turn)
            else:
                assert list(running) == ["good"]
                actions = manager.step([Completed(ticket=running["good"].ticket, seconds=0)], turn)
            ended += [(action.request, action.outcome) for action in actions if isinstance(action, End)]
        assert ended == [("bad1", "failed"), ("bad2", "failed"), ("bad3", "failed"), ("good", "done")]
        assert manager.held == 0

    def test_a_stream_that_has_begun_is_not_begun_again(self) -> None:
        driver = VirtualDriver(ControlPlaneManager(), EngineModel(first=MILLISECOND, token=MILLISECOND))
        driver.submit(0, single("a"))
        driver.advance(2 * MILLISECOND)
        driver.lose("m#1")
        driver.advance()
        assert ends(driver) == {"a": "failed"}
        assert len(of(driver, DispatchOne)) == 1

    def test_an_id_that_is_in_flight_is_refused(self) -> None:
        manager = ControlPlaneManager()
        manager.step([Submitted(outline=single("a"))], 0)
        with pytest.raises(UsageError, match="'a' is in flight already"):
            manager.step([Submitted(outline=single("a"))], 1)


class TestEngines:
    def test_tokenizing_does_not_wait_for_a_batch(self) -> None:
        driver = VirtualDriver(ControlPlaneManager(), EngineModel(batch=50 * MILLISECOND))
        driver.submit(0, embed("a", ["x"]))
        driver.submit(1, single("t", "tokenize"))
        driver.advance(MILLISECOND)
        assert [action.request for action in of(driver, DispatchOne)] == ["t"]

    def test_a_request_without_rows_ends_when_an_engine_is_ready(self) -> None:
        driver = drive(embed("empty", []), model=EngineModel(open=7))
        assert [(at, action.outcome) for at, action in driver.actions if isinstance(action, End)] == [(7, "done")]


class TestRefusals:
    def test_rejecting_and_shedding_end_requests_with_reason_and_delay(self) -> None:
        class Strict:
            def submit(self, work: Work, fleet: Fleet, now: int) -> Verdict:
                self.work = work
                return Rejected(reason="too long", retry_after=None) if work.rows > 2 else Queued()

            def next(self, fleet: Fleet, now: int) -> Decision:
                return Shed(work=self.work, reason="overload", retry_after=1.5)

            def observe(self, event: Event, now: int) -> None: ...

        driver = VirtualDriver(ControlPlaneManager(lambda name: Strict()), EngineModel())
        driver.submit(0, embed("long", ["a", "b", "c"]))
        driver.submit(1, embed("short", ["a"]))
        driver.advance()
        assert [(end.request, end.outcome, end.reason, end.retry_after) for end in of(driver, End)] == [
            ("long", "rejected", "too long", None),
            ("short", "shed", "overload", 1.5),
        ]
        assert driver.manager.held == 0
