"""Dispatches: each takes one credit and gives it back once, and open batches close when they are due."""

from __future__ import annotations

from sage_core.common.clock import MILLISECOND
from sage_core.common.records import Caller, Capacity, EngineInfo, Place, Work
from sage_core.kernel.control_plane.embedding_executor import LINGER, EmbeddingExecutor
from sage_core.kernel.control_plane.events import DispatchBatch, Outline
from sage_core.kernel.control_plane.fleet import Ledger
from sage_core.kernel.control_plane.flights import Fate, Flight, Flights, Live, decided


class Airfield:
    """One engine, and works to be sent to it."""

    def __init__(self, sequences: int = 1) -> None:
        self.executor = EmbeddingExecutor()
        self.ledger = Ledger(self.executor)
        self.flights = Flights(self.ledger, self.executor)
        #: What each boarding closed.
        self.closed: list[DispatchBatch | Flight | None] = []
        capacity = Capacity(sequences=sequences, batch_rows=4)
        self.ledger.add(EngineInfo(id="e", model="m", backend="b", kinds=(), capacity=capacity, identity="i"), "m")

    @property
    def running(self) -> int:
        seats = self.ledger.seats("e", "m")
        assert seats is not None
        return seats.running

    def embed(self, name: str, rows: int = 1, deadline: int | None = None) -> Work:
        keys = tuple(f"{name}{number}" for number in range(rows))
        outline = Outline(id=name, kind="embed", model="m", lane="m", caller=Caller(), sizes=(9,) * rows, keys=keys)
        work = Work(id=name, lane="m", kind="embed", arrival=0, deadline=deadline)
        (part,) = self.executor.take(outline, work, [5] * rows, Capacity())
        return part.work

    def board(self, work: Work, now: int = 0) -> Place:
        place = self.ledger.pick(work)
        assert place is not None
        assert self.flights.objection(work, place) == ""
        self.closed.append(self.flights.board(work, place, now)[1])
        return place


def live(name: str) -> tuple[Live, Work]:
    outline = Outline(id=name, kind="rerank", model="m", lane="m", caller=Caller(tenant="t"), sizes=(9,))
    return Live(outline, 3), Work(id=name, lane="m", kind="rerank", arrival=3, tokens_in=5)


def test_a_dispatch_holds_one_credit_until_it_lands() -> None:
    field = Airfield()
    request, work = live("r")
    flight = field.flights.launch(work, Place(engine="e"), request, 10)
    assert field.running == 1
    assert "has no room for it" in field.flights.objection(work, Place(engine="e"))
    assert "does not serve lane 'm'" in field.flights.objection(work, Place(engine="f"))
    assert field.flights.land(flight.ticket) is flight
    assert field.flights.land(flight.ticket) is None
    assert field.running == 0


def test_slices_share_a_batch_and_its_one_credit() -> None:
    field = Airfield()
    field.board(field.embed("a", 2))
    second = field.board(field.embed("b"))
    assert second.batch > 0
    assert field.running == 1
    (batch,) = field.flights.depart(0)
    assert isinstance(batch, DispatchBatch)
    assert batch.rows == (("a", 0), ("a", 1), ("b", 0))
    assert list(field.flights.depart(0)) == []


def test_a_full_batch_closes_at_once() -> None:
    field = Airfield(sequences=2)
    request, work = live("r")
    field.flights.launch(work, Place(engine="e"), request, 0)
    field.board(field.embed("a", 3))
    field.board(field.embed("b"))
    unfilled, filled = field.closed
    assert unfilled is None
    assert isinstance(filled, DispatchBatch)
    assert len(filled.rows) == 4


def test_a_batch_beside_other_work_waits_for_its_time_or_a_quarter_of_the_slack() -> None:
    field = Airfield(sequences=2)
    request, work = live("r")
    field.flights.launch(work, Place(engine="e"), request, 0)
    field.board(field.embed("a"))
    assert list(field.flights.wake()) == [LINGER]
    field.board(field.embed("b", deadline=4 * MILLISECOND))
    assert list(field.flights.wake()) == [MILLISECOND]
    assert list(field.flights.depart(MILLISECOND - 1)) == []
    assert len(list(field.flights.depart(MILLISECOND))) == 1


def test_a_batch_that_everyone_left_gives_its_credit_back() -> None:
    field = Airfield()
    field.board(field.embed("a"))
    field.executor.leave("a")
    (gone,) = field.flights.depart(0)
    assert isinstance(gone, Flight)
    assert (field.running, len(field.flights)) == (0, 0)


def test_a_crash_forgets_what_the_engine_held() -> None:
    field = Airfield(sequences=2)
    request, work = live("r")
    flight = field.flights.launch(work, Place(engine="e"), request, 0)
    field.board(field.embed("a"))
    assert [each.ticket for each in field.flights.crash("e")] == [flight.ticket, flight.ticket + 1]
    assert len(field.flights) == 0
    assert list(field.flights.wake()) == []


def test_a_line_says_whose_request_waited_how_long_and_where_it_went() -> None:
    field = Airfield()
    request, work = live("r")
    flight = field.flights.launch(work, Place(engine="e"), request, 10)
    line = decided(request, Fate(outcome="done", flight=flight, actual=0.5), 20)
    assert (line.request, line.tenant, line.wait, line.engine, line.batch) == ("r", "t", 7, "e", flight.ticket)
    assert (line.predicted, line.actual, line.outcome) == (field.ledger.cost(work), 0.5, "done")
    waiting, _ = live("w")
    line = decided(waiting, Fate(outcome="cancelled", reason="gone"), 9)
    assert (line.wait, line.engine, line.batch, line.reason) == (6, "", 0, "gone")
