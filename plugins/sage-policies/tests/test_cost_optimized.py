"""The cheapest engine that still meets the deadline."""

from __future__ import annotations

from sage_policies.cost_optimized import CostOptimized

from sage_core import SECOND, Place, Work
from sage_core.testing import BatchingModel, Call, FakeFleet, Simulation

ENGINES = (BatchingModel(price=8.0), BatchingModel(price=1.0))


def sent(calls: list[Call]) -> list[str]:
    simulation = Simulation(lambda name: CostOptimized(), ENGINES)
    simulation.submit(calls)
    simulation.run()
    return [engine for _, engine in simulation.dispatched]


def test_the_cheap_engine_is_taken_while_it_is_in_time() -> None:
    assert sent([Call(id=f"c{n}", at=n * 5.0, ttft=2.0) for n in range(4)]) == ["modelled#2"] * 4


def test_the_dear_one_takes_what_the_cheap_one_would_make_late() -> None:
    calls = [Call(id="long", at=0.0, tokens_in=3_900), Call(id="urgent", at=0.001, tokens_in=100, ttft=0.2)]
    assert sent(calls) == ["modelled#2", "modelled#1"]


class Priced(FakeFleet):
    """Engines that are as quick as they are dear."""

    def cost(self, work: Work, place: Place | None = None) -> float:
        return 8.0 / (place.price if place else 1.0)

    def tpot(self, work: Work, place: Place) -> float:
        return 0.08 / place.price

    def ttft(self, work: Work, place: Place) -> float:
        return self.cost(work, place)


def chosen(places: list[Place], *, due: float | None = None, tpot: float | None = None) -> str:
    deadline = None if due is None else round(due * SECOND)
    pace = None if tpot is None else round(tpot * SECOND)
    asked = Work(id="w", lane="chat", kind="generate", arrival=0, deadline=deadline, tpot=pace)
    found = CostOptimized().place(asked, places, Priced({"chat": {}}), 0)
    assert found is not None
    return found.engine


def test_of_equal_costs_the_sooner_one() -> None:
    assert chosen([Place(engine="cheap", price=1.0), Place(engine="dear", price=8.0)]) == "dear"


def test_a_pace_that_the_cheap_engine_cannot_keep_goes_to_one_that_can() -> None:
    places = [Place(engine="slow", price=0.5), Place(engine="middle", price=2.0), Place(engine="quick", price=16.0)]
    assert chosen(places, tpot=0.05) in ("middle", "quick")
    assert chosen(places, tpot=0.01) == "quick"
    # Where none is in time, the soonest.
    assert chosen(places, tpot=0.001) == "quick"
    assert chosen(places, due=0.1) == "quick"


def test_a_quick_engine_is_not_overlooked_among_many_cheap_ones() -> None:
    cheap = [Place(engine=f"cheap{n}", price=1.0) for n in range(100)]
    quick = [Place(engine="quick1", price=16.0, load=9.0), Place(engine="quick2", price=16.0, load=8.0)]
    assert chosen([*cheap, *quick], due=2.0) == "quick2"
