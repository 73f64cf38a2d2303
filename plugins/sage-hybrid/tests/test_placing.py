"""Part *place*: which of the engines that may take a work gets it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from sage_hybrid.placing import Placing

from sage_core import Place, ServiceClass, Work
from sage_core.testing import Answer, BatchingModel, Call, FakeFleet

Serve = Callable[..., tuple[list[tuple[str, str]], dict[str, Answer]]]


class Unequal(FakeFleet):
    """Engines of different speeds, some of which know prompts."""

    def __init__(self, speeds: dict[str, float], known: dict[str, int] | None = None) -> None:
        super().__init__({"chat": dict.fromkeys(speeds, 9)})
        self._speeds, self._known = speeds, known or {}

    def cost(self, work: Work, place: Place | None = None) -> float:
        return work.cost / (self._speeds[place.engine] if place else 1.0)

    def ttft(self, work: Work, place: Place) -> float:
        return (place.prefill + work.tokens_in) / 1_000 / self._speeds[place.engine]

    def cached(self, work: Work, place: Place) -> int:
        return self._known.get(place.engine, 0)


def work(service_class: ServiceClass = "interactive", *, kind: str = "generate", prefix: tuple[int, ...] = ()) -> Work:
    return Work(
        id="w",
        lane="chat",
        kind=kind,
        arrival=0,
        service_class=service_class,
        tokens_in=1_000,
        cost=1.0,
        prefix=prefix,
    )


def chosen(asked: Work, fleet: FakeFleet, *places: Place) -> str:
    found = Placing(on=True).choose(asked, list(places), fleet)
    assert found is not None
    return found.engine


def test_a_prompt_goes_where_few_tokens_wait(serve: Serve) -> None:
    calls = [
        Call(id="long", at=0.0, tokens_in=4_000, tokens_out=2),
        Call(id="stream", at=0.0, tokens_in=50, tokens_out=400),
        Call(id="short", at=0.001, tokens_in=50, ttft=1.0),
    ]
    engines = [BatchingModel()] * 2
    (whole, kept), (without, full) = serve(calls, engines), serve(calls, engines, place=False)
    assert whole != without
    # By predicted engine-seconds the engine with the long prompt has less to do, but the prompt comes first.
    assert (kept["short"].ttft or 9.0) < 0.5 * (full["short"].ttft or 0.0)


def test_a_prompt_goes_where_it_is_known_unless_that_engine_holds_much() -> None:
    fleet = Unequal({"knows": 1.0, "idle": 1.0}, known={"knows": 900})
    asked = work(prefix=(1, 2))
    assert chosen(asked, fleet, Place(engine="knows", running=5), Place(engine="idle")) == "knows"
    assert chosen(asked, fleet, Place(engine="knows", running=15), Place(engine="idle")) == "idle"
    assert chosen(work(), fleet, Place(engine="knows", running=5), Place(engine="idle")) == "idle"


@pytest.mark.parametrize("seed", range(10))
def test_a_chat_never_gets_a_place_that_another_beats_in_tokens_and_in_works(seed: int) -> None:
    rng = random.Random(seed)
    places = [Place(engine=f"e{n}", prefill=rng.randrange(4_000), running=rng.randrange(40)) for n in range(30)]
    fleet = Unequal({place.engine: 1.0 for place in places})
    best = next(place for place in places if place.engine == chosen(work(), fleet, *places))
    assert not [place for place in places if place.prefill < best.prefill and place.running < best.running]


def test_batch_is_packed_where_most_runs() -> None:
    fleet = Unequal({"a": 1.0, "b": 1.0, "c": 1.0})
    places = [Place(engine="a", running=3, load=9.0), Place(engine="b", running=7, load=8.0), Place(engine="c")]
    assert chosen(work("batch"), fleet, *places) == "b"
    assert chosen(work("batch"), fleet, Place(engine="a", running=3, load=9.0), Place(engine="b", running=3)) == "b"


def test_embeddings_in_a_hurry_go_where_they_end_first_and_in_bulk_where_they_cost_least() -> None:
    fleet = Unequal({"gpu": 20.0, "cpu": 1.0})
    gpu, cpu = Place(engine="gpu", load=2.0, price=8.0), Place(engine="cpu", price=1.0)
    assert chosen(work(kind="embed"), fleet, gpu, cpu) == "cpu"
    assert chosen(work("batch", kind="embed"), fleet, gpu, cpu) == "gpu"


def test_what_would_be_late_at_the_best_place_goes_where_it_is_answered_first() -> None:
    fleet = Unequal({"slow": 0.1, "quick": 1.0})
    slow, quick = Place(engine="slow"), Place(engine="quick", prefill=500, running=3)
    assert chosen(work(), fleet, slow, quick) == "slow"
    assert Placing(on=True).soonest(work(), [slow, quick], fleet).engine == "quick"
    late = Place(engine="quick", load=2.0)
    assert Placing(on=True).soonest(work(kind="embed"), [slow, late], fleet).engine == "quick"


def test_without_the_part_the_selector_chooses() -> None:
    fleet = Unequal({"a": 1.0, "b": 1.0})
    places = [Place(engine="a", running=3), Place(engine="b", running=1, prefill=4_000)]
    found = Placing(on=False).choose(work(), places, fleet)
    assert found is not None
    assert (found.engine, chosen(work(), fleet, *places)) == ("b", "a")


def test_the_filters_of_the_selector_have_the_last_word() -> None:
    class Closed(Unequal):
        def pick(self, work: Work, places: object = None) -> None:
            return None

    assert Placing(on=True).confirm(work(), Place(engine="a"), Closed({"a": 1.0})) is None
