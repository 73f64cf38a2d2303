"""The defaults: what they offer, and what each decides."""

from __future__ import annotations

import random

import pytest

from sage_core import Candidate, Needs, Node, Place, Work
from sage_core.builtins import (
    HEAD_START,
    Affinity,
    Best,
    Capability,
    Fifo,
    Fits,
    LeastLoaded,
    Pack,
    Priority,
    RoundRobin,
    Spread,
    default_host,
)

WORK = Work(id="w", lane="a", kind="embed", arrival=0, tokens_in=100)


def test_the_defaults_are_offered_like_a_plugins() -> None:
    host = default_host({})
    assert host.contributions("builtins") == {
        "schedulers": ["fifo", "priority"],
        "selectors": ["affinity", "best", "capability", "fits", "least_loaded", "pack", "round_robin", "spread"],
    }
    assert host.check() == []


#: Epoch ns of a run's jobs, where floats are exact to 256 ns.
NOON = 1_790_000_000_000_000_000


def queued(minute: float, priority: int) -> Work:
    arrival = NOON + int(minute * HEAD_START)
    return Work(id=f"{priority} at {minute}", lane="default", kind="job", arrival=arrival, priority=priority)


def test_priority_is_a_head_start_so_what_waits_overtakes_what_comes_later() -> None:
    low = queued(0, 0)
    high = [queued(minute, 3) for minute in (0, 1, 2.9, 3.1, 4, 5)]
    order = sorted([low, *high], key=Priority().rank)
    assert [work.id for work in order] == ["3 at 0", "3 at 1", "3 at 2.9", "0 at 0", "3 at 3.1", "3 at 4", "3 at 5"]


def test_equal_priorities_are_first_come_first_served() -> None:
    works = [queued(minute / 1000, 0) for minute in (5, 1, 9, 2, 2)]
    assert [Priority().rank(work) for work in works] == [Fifo().rank(work) for work in works]


@pytest.mark.parametrize(
    ("needs", "capable", "fits"),
    [
        (Needs(), True, True),
        (Needs(cpu=4), True, False),
        (Needs(cpu=2), True, True),
        (Needs(cpu=5), False, False),
        (Needs(memory=90), True, False),
        (Needs(memory=101), False, False),
        (Needs(gpu=1), True, False),
        (Needs(gpu=2), False, False),
        (Needs(gpu_memory=50), True, True),
        (Needs(gpu_memory=51), False, True),
        (Needs(labels=("fast",)), True, True),
        (Needs(labels=("fast", "ssd")), False, True),
    ],
)
def test_what_a_node_can_do_and_what_it_has_left(needs: Needs, capable: bool, fits: bool) -> None:
    node = Node(
        name="n", cpu=4, memory=100, gpu=1, gpu_memory=50, labels=("fast",), used_cpu=2, used_memory=20, used_gpu=1
    )
    candidate = Candidate(id="n", node=node)
    assert Capability().admits(WORK, needs, candidate) is capable
    assert Fits().admits(WORK, needs, candidate) is fits


@pytest.mark.parametrize(("batch", "room", "fits"), [(0, 0, True), (1, 99, False), (1, 100, True)])
def test_an_open_batch_fits_what_it_has_room_for(batch: int, room: int, fits: bool) -> None:
    candidate = Candidate(id="e", place=Place(engine="e", batch=batch, room_tokens=room))
    assert Fits().admits(WORK, Needs(), candidate) is fits


def test_the_least_loaded_scores_highest_and_fewer_works_decide_ties() -> None:
    scores = LeastLoaded().score(
        WORK,
        [
            Candidate(id="busy", load=4.0),
            Candidate(id="even", load=1.0, running=2),
            Candidate(id="free", load=1.0, running=1),
        ],
    )
    assert sorted(scores, key=scores.__getitem__) == ["busy", "even", "free"]
    assert scores["free"] == 1.0
    assert scores["busy"] == 0.0


def test_spread_and_pack_look_at_the_scarcest_resource_and_affinity_at_what_is_there() -> None:
    empty = Candidate(id="empty", node=Node(name="empty", cpu=4, memory=100))
    busy = Candidate(id="busy", node=Node(name="busy", cpu=4, memory=100, used_cpu=1, used_memory=75), local=0.5)
    bare = Candidate(id="bare", node=Node(name="bare", cpu=0, gpu=1, used_gpu=1))
    assert Spread().score(WORK, [empty, busy, bare]) == {"empty": 1.0, "busy": 0.25, "bare": 0.0}
    assert Pack().score(WORK, [empty, busy, bare]) == {"empty": 0.0, "busy": 0.75, "bare": 1.0}
    assert Affinity().score(WORK, [empty, busy]) == {"empty": 0.0, "busy": 0.5}


def test_best_takes_the_highest_score() -> None:
    assert Best().pick(WORK, {"a": 0.1, "b": 0.9, "c": 0.8}) == "b"


def test_ties_spread_over_works_and_repeat_with_the_seed() -> None:
    scores = dict.fromkeys("abcd", 1.0)
    works = [Work(id=f"w{n}", lane="a", kind="embed", arrival=0) for n in range(200)]
    picks = [Best(seed=1).pick(work, scores) for work in works]
    assert picks == [Best(seed=1).pick(work, dict(reversed(scores.items()))) for work in works]
    assert picks != [Best(seed=2).pick(work, scores) for work in works]
    assert all(30 <= picks.count(name) <= 70 for name in scores)


def test_round_robin_takes_turns_among_the_highest() -> None:
    picker = RoundRobin()
    scores = {"a": 1.0, "b": 0.5, "c": 1.0}
    assert [picker.pick(WORK, scores) for _ in range(4)] == ["a", "c", "a", "c"]


def test_round_robin_is_fair_within_one_turn_at_every_moment() -> None:
    picker, counts = RoundRobin(), dict.fromkeys("dbcaefg", 0)
    for _ in range(100):
        counts[picker.pick(WORK, dict.fromkeys(counts, 0.0))] += 1
        assert max(counts.values()) - min(counts.values()) <= 1


def test_round_robin_among_those_who_are_open_takes_the_one_that_waited_longest() -> None:
    rng, picker = random.Random(1), RoundRobin()
    last: dict[str, int] = {}
    for turn in range(500):
        open_to = rng.sample("abcdefgh", rng.randrange(1, 8))
        chosen = picker.pick(WORK, dict.fromkeys(open_to, 0.0))
        assert last.get(chosen, -1) == min(last.get(name, -1) for name in open_to)
        last[chosen] = turn


def test_round_robin_gives_a_newcomer_the_next_turn() -> None:
    picker = RoundRobin()
    for _ in range(3):
        picker.pick(WORK, {"a": 0.0, "b": 0.0})
    assert [picker.pick(WORK, dict.fromkeys("abc", 0.0)) for _ in range(3)] == ["c", "b", "a"]


def test_round_robin_forgets_engines_that_are_gone() -> None:
    picker = RoundRobin()
    for number in range(5_000):
        picker.pick(WORK, {f"engine{number}": 1.0})
    assert len(picker._turns) < 1_100
