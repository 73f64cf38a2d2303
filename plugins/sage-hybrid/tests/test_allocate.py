"""Part *allocate*: whose turn it is, among the classes and within each among the tenants."""

from __future__ import annotations

from collections.abc import Callable

from sage_hybrid.allocate import SAVED, Allocate

from sage_core import Capacity, Finished, ServiceClass, Work
from sage_core.testing import Answer, BatchingModel, Call, arrivals

Serve = Callable[..., tuple[list[tuple[str, str]], dict[str, Answer]]]

SMALL = BatchingModel(capacity=Capacity(sequences=4, prefill_tokens=4_096, kv_tokens=40_000))


def work(id: str, service_class: ServiceClass = "interactive", *, tenant: str = "a", cost: float = 1.0) -> Work:
    return Work(
        id=id,
        lane="chat",
        kind="generate",
        arrival=0,
        service_class=service_class,
        tenant=tenant,
        cost=cost,
        tokens_in=100,
        tokens_out=50,
    )


def allocate(*, on: bool = True, batch: float = 0.1, quantum: float = 0.5, strict: bool = False) -> Allocate:
    return Allocate(on=on, floors={"standard": 0.2, "batch": batch}, quantum=quantum, strict=strict)


def enter(queues: Allocate, *works: Work) -> None:
    for rank, each in enumerate(works):
        queues.of(each).push(each, float(rank))


def drained(queues: Allocate) -> list[str]:
    """Ids in the order of turns, those due by their floor in capitals."""
    found = []
    while turn := next(queues.turns(), None):
        head = turn[0].head()
        assert head is not None
        found.append(head.id.upper() if turn[1] else head.id)
        queues.serve(head, floor=turn[1])
    return found


def test_it_puts_people_before_batch_and_keeps_a_floor_for_it(serve: Serve) -> None:
    bulk = arrivals("bulk", 20, 6, service_class="batch")
    chat = arrivals("chat", 8, 12, ttft=40.0)
    calls = [*bulk, *chat]
    (whole, _), (without, _) = serve(calls, [SMALL], batch=0.2), serve(calls, [SMALL], allocate=False)
    assert whole != without
    last = max(n for n, (request, _) in enumerate(whole) if request.startswith("chat"))
    before = [request for request, _ in whole[:last] if request.startswith("bulk")]
    # Of the engine-seconds of some 96 chats a fifth, beside what came while nobody else was there.
    assert 8 <= len(before) <= 25


def test_it_shares_between_tenants(serve: Serve) -> None:
    loud = arrivals("loud", 40, 3, tenant="loud")
    quiet = arrivals("quiet", 4, 3, tenant="quiet")
    (whole, kept), (without, full) = serve([*loud, *quiet], [SMALL]), serve([*loud, *quiet], [SMALL], allocate=False)
    assert whole != without
    waits = [max(found[call.id].wait or 0.0 for call in quiet) for found in (kept, full)]
    assert waits[0] < 0.5 * waits[1]


def test_strict_goes_by_exact_counters_whatever_the_deadlines(serve: Serve) -> None:
    # Both are within half an engine-second of one another all the time, and one of them is in more of a hurry.
    calls = [Call(id=f"runs{n}", at=0.0, tokens_out=200, service_class="batch") for n in range(4)]
    calls += [
        Call(id=f"{tenant}{n}", at=0.1, tokens_out=10, tenant=tenant, ttft=ttft)
        for tenant, ttft in (("soon", 20.0), ("later", 40.0))
        for n in range(4)
    ]
    loose, strict = serve(calls, [SMALL], quantum=100.0)[0], serve(calls, [SMALL], strict=True)[0]
    assert [request.rstrip("0123456789") for request, _ in loose[4:]] == ["soon"] * 4 + ["later"] * 4
    turns = [request.rstrip("0123456789") for request, _ in strict[4:]]
    assert all({*turns[n : n + 2]} == {"soon", "later"} for n in range(0, 8, 2))


def test_a_floor_is_a_share_of_the_engine_seconds_of_higher_classes() -> None:
    queues = allocate(batch=0.125)
    enter(queues, *(work(f"c{n}") for n in range(40)), *(work(f"b{n}", "batch") for n in range(10)))
    found = drained(queues)
    # Each eighth chat lets one batch work go; the rest of batch goes when the chats are done.
    assert found[:9] == [*(f"c{n}" for n in range(8)), "B0"]
    assert found.index("c39") == 43
    assert found[44:] == ["B4", *(f"b{n}" for n in range(5, 10))]


def test_a_work_larger_than_what_is_saved_gets_its_turn() -> None:
    queues = allocate(batch=0.125)
    large = work("large", "batch", cost=2 * SAVED)
    enter(queues, *(work(f"c{n}") for n in range(1_000)), large)
    assert drained(queues).index("LARGE") == round(2 * SAVED / 0.125)


def test_a_floor_that_could_not_be_used_is_not_saved_without_end() -> None:
    queues = allocate(batch=1.0)
    enter(queues, *(work(f"c{n}") for n in range(200)), *(work(f"b{n}", "batch") for n in range(200)))
    for number in range(100):
        # No place takes batch for a while.
        queues.serve(work(f"c{number}"), floor=False)
    due = [id for id in drained(queues)[:100] if id.startswith("B")]
    # What is saved, and half of what follows.
    assert SAVED + 35 <= len(due) <= SAVED + 45


def test_who_does_not_wait_is_owed_nothing() -> None:
    queues = allocate(batch=1.0)
    enter(queues, *(work(f"c{n}") for n in range(50)))
    for number in range(50):
        queues.serve(work(f"c{number}"), floor=False)
    enter(queues, work("late"), work("b", "batch"))
    assert drained(queues) == ["late", "B"]


def test_without_the_part_there_is_one_queue() -> None:
    queues = allocate(on=False)
    enter(queues, work("b", "batch"), work("c"), work("s", "standard", tenant="z"))
    assert drained(queues) == ["b", "c", "s"]


def counter(queues: Allocate) -> float:
    return queues.queues["interactive"]._counters.of("a")


def test_what_was_predicted_is_settled_by_what_it_took() -> None:
    queues, asked = allocate(), work("w", cost=2.0)
    for event, left in (
        (Finished(work=asked, engine="e", tokens_in=100, tokens_out=50), 2.0),
        (Finished(work=asked, engine="e", tokens_in=100, tokens_out=0), 2.0),
        (Finished(work=asked, engine="e", tokens_in=100, tokens_out=150), 4.0),
        (Finished(work=asked, engine="e", tokens_in=100, tokens_out=50, cached=100), 1.0),
        (Finished(work=asked, engine="e", tokens_in=100, tokens_out=0, ok=False), 1.0),
    ):
        queues = allocate()
        enter(queues, asked)
        queues.serve(asked, floor=False)
        queues.settle(event)
        assert counter(queues) == left
    queues.refund(asked)
    assert counter(queues) == 0.0
