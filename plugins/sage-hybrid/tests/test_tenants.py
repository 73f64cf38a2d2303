"""The works of one class, by tenant: who has been served least goes first, and within a step of that, by rank."""

from __future__ import annotations

import random

import pytest
from sage_hybrid.tenants import Tenants

from sage_core import Work


def work(id: str, tenant: str = "a", *, cost: float = 1.0) -> Work:
    return Work(id=id, lane="chat", kind="embed", arrival=0, tenant=tenant, cost=cost)


def served(tenants: Tenants) -> list[str]:
    found = []
    while (head := tenants.head()) is not None:
        found.append(head.id)
        tenants.serve(head)
    return found


def test_within_a_quantum_the_rank_decides_and_beyond_it_who_was_served_least() -> None:
    tenants = Tenants(2.0)
    for rank, id, tenant in ((0, "a0", "a"), (1, "a1", "a"), (2, "a2", "a"), (3, "b0", "b"), (4, "b1", "b")):
        tenants.push(work(id, tenant), float(rank))
    assert served(tenants) == ["a0", "a1", "b0", "b1", "a2"]


def test_without_a_quantum_all_are_one() -> None:
    tenants = Tenants(None)
    for rank, id, tenant in ((2, "c", "a"), (0, "a", "a"), (1, "b", "b")):
        tenants.push(work(id, tenant), float(rank))
    assert served(tenants) == ["a", "b", "c"]


def test_a_stranger_gains_nothing_on_one_who_was_served_while_nobody_waited() -> None:
    tenants = Tenants(0.5)
    for number in range(100):
        tenants.push(work(f"old{number}", "old"), 0.0)
        tenants.serve(work(f"old{number}", "old"))
    for number in range(20):
        tenants.push(work(f"new{number}", "new"), 1.0)
        tenants.push(work(f"old{number}", "old"), 1.0)
    assert 8 <= sum(id.startswith("new") for id in served(tenants)[:20]) <= 12


def test_what_is_skipped_is_looked_past_and_keeps_its_place() -> None:
    tenants = Tenants(1.0)
    for rank, id, tenant in ((0, "a0", "a"), (1, "b0", "b"), (2, "a1", "a")):
        tenants.push(work(id, tenant, cost=0.1), float(rank))
    skipped = [tenants.skip()]
    head = tenants.head()
    assert head is not None
    assert head.id == "b0"
    skipped += [tenants.skip(), tenants.skip()]
    assert tenants.head() is None
    tenants.restore(skipped)
    assert (len(tenants), served(tenants)) == (3, ["a0", "b0", "a1"])


@pytest.mark.parametrize("seed", range(20))
def test_it_is_a_sorted_list_whatever_comes_and_goes(seed: int) -> None:
    rng = random.Random(seed)
    tenants, model = Tenants(1.0), dict[str, tuple[float, int, Work]]()
    for entry in range(600):
        id = f"w{rng.randrange(40)}"
        asked = work(id, f"t{int(id[1:]) % 5}", cost=0.3)
        chance = rng.random()
        if chance < 0.5:
            model[id] = float(rng.randrange(6)), entry, asked
            tenants.push(asked, model[id][0])
        elif chance < 0.7:
            assert tenants.discard(asked) is (model.pop(id, None) is not None)
        elif chance < 0.8:
            tenants.charge(asked, rng.uniform(-1.0, 1.0))
        elif model and chance < 0.9:
            id, (_, _, asked) = rng.choice(sorted(model.items()))
            model[id] = 9.0, entry, asked
            tenants.move(asked, 9.0)
        elif (first := tenants.head()) is not None:
            tenants.serve(first)
            del model[first.id]

        def place(each: tuple[float, int, Work]) -> tuple[int, float, str, int]:
            return int(tenants._counters.of(each[2].tenant)), each[0], each[2].tenant, each[1]

        head, first_of_all = tenants.head(), min(model.values(), key=place, default=None)
        assert (head.id if head else None) == (first_of_all[2].id if first_of_all else None)
        assert len(tenants) == len(model)
        assert tenants.cost == pytest.approx(0.3 * len(model))


def test_a_flood_of_those_who_leave_does_not_pile_up() -> None:
    tenants = Tenants(0.5)
    tenants.push(work("stays"), 0.0)
    for number in range(20_000):
        gone = work(f"w{number}", f"t{number % 50}")
        tenants.push(gone, 1.0)
        tenants.discard(gone)
    assert len(tenants) == 1
    assert len(tenants._heap) + sum(queue.size for queue in tenants._queues.values()) < 300


def test_counters_of_tenants_who_left_are_forgotten() -> None:
    tenants = Tenants(0.5)
    for number in range(5_000):
        gone = work(f"w{number}", f"t{number}")
        tenants.push(gone, 1.0)
        tenants.serve(gone)
    assert len(tenants._counters) <= 1_200
