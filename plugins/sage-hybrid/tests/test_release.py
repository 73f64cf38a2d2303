"""Part *release*: when an engine may take more."""

from __future__ import annotations

from collections.abc import Callable

from sage_hybrid.release import MOST, Release

from sage_core import SECOND, Place, ServiceClass, Work
from sage_core.testing import Answer, BatchingModel, arrivals, percentile

Serve = Callable[..., tuple[list[tuple[str, str]], dict[str, Answer]]]


def work(id: str = "w", service_class: ServiceClass = "interactive", *, tpot: int | None = None) -> Work:
    return Work(id=id, lane="chat", kind="generate", arrival=0, service_class=service_class, tpot=tpot)


def admitted(release: Release, asked: Work, *places: Place, now: int = 0, floor: bool = False) -> list[str]:
    return [place.engine for place in release.admits(asked, list(places), now, floor=floor)]


def at(share: float) -> Place:
    """An engine at this share of the pace that its works ask for."""
    return Place(engine=f"{share}", running=3, itl=share * 0.05, tpot=0.05)


def test_it_keeps_the_pace_of_streams_in_a_burst(serve: Serve) -> None:
    calls = arrivals("chat", 60, 10, tokens_in=1_000, tpot=0.03)
    engines = [BatchingModel()] * 2
    (whole, kept), (without, full) = serve(calls, engines), serve(calls, engines, release=False)
    assert whole != without
    paces = [percentile([each.tpot or 0.0 for each in found.values()], 0.9) for found in (kept, full)]
    assert paces[0] <= 0.03 < paces[1]


def test_it_never_closes_an_engine_without_targets(serve: Serve) -> None:
    calls = arrivals("bulk", 60, 10, tokens_in=1_000, service_class="batch")
    assert serve(calls, [BatchingModel()])[0] == serve(calls, [BatchingModel()], release=False)[0]


def test_batch_is_held_back_before_people_are() -> None:
    release = Release(on=True, reserve=0)
    places = [at(share) for share in (0.79, 0.85, 0.95)]
    assert admitted(release, work(), *places) == ["0.79", "0.85"]
    assert admitted(release, work(service_class="batch"), *places) == ["0.79"]
    assert admitted(release, work(service_class="batch"), *places, floor=True) == ["0.79", "0.85"]
    assert len(admitted(Release(on=False, reserve=0), work(), *places)) == 3


def test_batch_leaves_seats_free_while_people_are_there_and_no_longer() -> None:
    release, bulk = Release(on=True, reserve=0), work(service_class="batch")
    place = Place(engine="e", running=6, seats=8)
    for number in range(6):
        release.sent(work(f"b{number}", "batch"), place)
    assert admitted(release, bulk, place) == ["e"]
    release.arrived(work("chat", tpot=SECOND), 0)
    assert admitted(release, bulk, place) == []
    assert admitted(release, bulk, place, now=31 * SECOND) == ["e"]
    release.ended(work("b0", "batch"), "e")
    assert admitted(release, bulk, place) == ["e"]
    release.sent(work("b0", "batch"), place)
    release.down("e", "chat")
    assert admitted(release, bulk, place) == ["e"]


def test_an_engine_holds_a_bounded_number_of_batch_works_while_people_are_there() -> None:
    release, place = Release(on=True, reserve=0), Place(engine="e", running=MOST, seats=1_000)
    release.arrived(work("chat", tpot=SECOND), 0)
    for number in range(MOST):
        assert admitted(release, work(service_class="batch"), place) == ["e"]
        release.sent(work(f"b{number}", "batch"), place)
    assert admitted(release, work(service_class="batch"), place) == []
    # One that holds nothing, whatever is counted, takes anything.
    assert admitted(release, work(service_class="batch"), Place(engine="e", seats=1_000)) == ["e"]


def test_prompts_of_batch_go_one_at_a_time_to_an_engine_unless_their_floor_is_due() -> None:
    release, busy = Release(on=True, reserve=0), Place(engine="e", running=2, prefill=900)
    release.arrived(work("chat", tpot=SECOND), 0)
    assert admitted(release, work(service_class="batch"), busy) == []
    assert admitted(release, work(service_class="batch"), busy, floor=True) == ["e"]
    assert admitted(release, work(), busy) == ["e"]


def test_a_reserve_is_closed_to_batch_as_long_as_others_are_up() -> None:
    release = Release(on=True, reserve=1)
    places = [Place(engine="a"), Place(engine="b")]
    assert admitted(release, work(service_class="batch"), *places) == ["b"]
    assert admitted(release, work(), *places) == ["a", "b"]
    release.down("b", "chat")
    assert admitted(release, work(service_class="batch"), places[0]) == ["a"]
    release.up("b", "chat")
    assert admitted(release, work(service_class="batch"), *places) == ["b"]
