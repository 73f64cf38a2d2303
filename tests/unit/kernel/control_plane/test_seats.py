"""What is kept for each engine: credits, rates, and the prompts it has seen."""

from __future__ import annotations

import pytest

from sage_core.common.records import Capacity, EngineInfo, Occupancy, Work
from sage_core.kernel.control_plane.seats import FORGOTTEN_BLOCKS, REMEMBERED_BLOCKS, Member, Prefixes, Rate


def member(**capacity: int) -> Member:
    info = EngineInfo(
        id="e", model="m", backend="b", kinds=("generate",), capacity=Capacity(**capacity), identity="i", price=2.0
    )
    return Member(info, "m")


def work(tokens_in: int, tokens_out: int = 0) -> Work:
    return Work(id="w", lane="m", kind="generate", arrival=0, tokens_in=tokens_in, tokens_out=tokens_out)


def test_an_engine_has_seats_for_its_work_and_some_beside_them_for_token_limits() -> None:
    engine = member(sequences=3)
    assert [(seats.lane, seats.limit, seats.free) for seats in engine.all] == [("m", 3, True), ("m:tokenize", 2, True)]
    assert engine.main.place.price == 2.0


def test_an_empty_engine_takes_any_prompt_and_a_busy_one_what_fits() -> None:
    seats = member(prefill_tokens=100, kv_tokens=1_000).main
    assert seats.fits(work(5_000))
    seats.prefill, seats.context = 60, 500
    seats.changed()
    assert seats.fits(work(40, 460))
    assert not seats.fits(work(41))
    assert not seats.fits(work(40, 461))


def test_what_goes_twice_beyond_the_most_that_was_ours_is_others() -> None:
    seats = member(sequences=8, kv_tokens=1_000).main
    seats.running, seats.context, seats.peak = 2, 100, 4
    # Four were ours a while ago, and the engine may not have noticed that two of them have left.
    assert not seats.share(Occupancy(requests=4, kv_tokens=900))
    # A single look may have met what was just leaving.
    assert not seats.share(Occupancy(requests=5, kv_tokens=500))
    assert seats.others == 0
    assert seats.share(Occupancy(requests=6, kv_tokens=600))
    # Three went beyond, and then four: three were there both times. Of 600 tokens ours is what is reserved, 100.
    assert (seats.others, seats.others_context) == (3, 500)
    seats.changed()
    assert (seats.place.running, seats.place.context) == (5, 600)
    assert not seats.fits(work(200, 201))
    assert seats.fits(work(200, 200))
    # Ours comes and goes between the looks, and may be out when one is taken: that makes theirs no fewer.
    seats.running = 3
    seats.changed()
    assert not seats.share(Occupancy(requests=5, kv_tokens=600))
    assert not seats.share(Occupancy(requests=3, kv_tokens=500))
    assert seats.share(Occupancy(requests=3))
    assert (seats.others, seats.others_context) == (0, 0)


def test_others_hold_their_share_where_ours_is_reserved_for_more_than_there_is_yet() -> None:
    seats = member(sequences=8, kv_tokens=1_000).main
    seats.running, seats.context, seats.peak = 1, 900, 1
    for _ in range(2):
        seats.share(Occupancy(requests=4, kv_tokens=400))
    assert (seats.others, seats.others_context) == (3, 300)


def test_one_place_is_ours_however_many_others_there_are() -> None:
    seats = member(sequences=4).main
    for _ in range(2):
        seats.share(Occupancy(requests=50))
    assert seats.free
    seats.running = 1
    assert not seats.free


def test_a_place_is_made_once_for_each_change() -> None:
    seats = member().main
    first = seats.place
    assert seats.place is first
    seats.running = 1
    seats.changed()
    assert seats.place.running == 1


def test_a_rate_follows_what_is_measured_by_its_tokens() -> None:
    rate = Rate(0.01)
    assert rate.per_token == pytest.approx(0.01)
    for _ in range(100):
        rate.add(1_000, 1.0)
    assert rate.per_token == pytest.approx(0.001, rel=0.01)


def test_prefixes_count_from_the_first_block_without_a_gap_and_forget_the_oldest() -> None:
    seen = Prefixes()
    seen.add((1, 2, 3))
    assert [seen.blocks(prefix) for prefix in ((1, 2, 9, 3), (9, 1), ())] == [2, 0, 0]
    for block in range(10, 10 + REMEMBERED_BLOCKS + FORGOTTEN_BLOCKS):
        seen.add((block,))
    assert (seen.blocks((1,)), len(seen) >= REMEMBERED_BLOCKS) == (0, True)
