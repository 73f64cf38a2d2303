"""The queue that policies keep their works in: its order, its ties, and that what is dead does not pile up."""

from __future__ import annotations

import random

import pytest

from sage_core import Ranked, Work, WorkHeap


def work(id: str, *, at: int = 0) -> Work:
    return Work(id=id, lane="chat", kind="embed", arrival=at)


def drained(heap: WorkHeap) -> list[str]:
    found = []
    while (entry := heap.head()) is not None:
        found.append(entry[3].id)
        heap.discard(entry[3].id)
    return found


def test_ties_fall_by_arrival_and_then_by_entry() -> None:
    heap = WorkHeap()
    for id, at in (("late", 2), ("second", 1), ("third", 1)):
        heap.push(work(id, at=at), 7.0)
    heap.push(work("first", at=9), 6.0)
    assert drained(heap) == ["first", "second", "third", "late"]


def test_a_second_entry_of_an_id_takes_the_place_of_the_first() -> None:
    heap = WorkHeap()
    heap.push(work("a"), 1.0)
    heap.push(work("a", at=9), 5.0)
    heap.push(work("b"), 2.0)
    assert (len(heap), drained(heap)) == (2, ["b", "a"])


def test_what_is_taken_out_and_put_back_keeps_its_place() -> None:
    heap = WorkHeap()
    for number, id in enumerate("abc"):
        heap.push(work(id), float(number))
    taken: list[Ranked] = []
    for _ in range(2):
        assert heap.head() is not None
        taken.append(heap.pop())
    assert ("a" in heap, len(heap)) == (True, 3)
    heap.discard("b")
    for entry in taken:
        heap.put_back(entry)
    assert drained(heap) == ["a", "c"]


def test_the_dead_do_not_pile_up() -> None:
    heap = WorkHeap()
    heap.push(work("stays"), 0.0)
    for number in range(5_000):
        heap.push(work(f"w{number}"), float(number))
        heap.discard(f"w{number}")
    assert (len(heap), heap.size < 40) == (1, True)
    assert heap.discard("stranger") is None


@pytest.mark.parametrize("seed", range(20))
def test_it_is_a_sorted_list_whatever_comes_and_goes(seed: int) -> None:
    rng = random.Random(seed)
    heap, model, entries = WorkHeap(), dict[str, tuple[float, int, int]](), 0
    for _ in range(400):
        id = f"w{rng.randrange(60)}"
        if rng.random() < 0.6:
            entries += 1
            rank, at = float(rng.randrange(5)), rng.randrange(3)
            heap.push(work(id, at=at), rank)
            model[id] = rank, at, entries
        else:
            known = heap.discard(id)
            assert (known.id if known else None) == (id if model.pop(id, None) else None)
        head = heap.head()
        assert (head[3].id if head else None) == min(model, key=lambda name: model[name], default=None)
    assert drained(heap) == sorted(model, key=lambda name: model[name])
