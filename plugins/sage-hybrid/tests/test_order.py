"""Part *order*: the earliest deadline first, the doomed behind the feasible, optionally the small a little earlier."""

from __future__ import annotations

from collections.abc import Callable

from sage_hybrid.order import Order

from sage_core import SECOND, Capacity, ServiceClass, Work
from sage_core.testing import Answer, BatchingModel, Call, FakeFleet, arrivals

Serve = Callable[..., tuple[list[tuple[str, str]], dict[str, Answer]]]

SMALL = BatchingModel(capacity=Capacity(sequences=4, prefill_tokens=4_096, kv_tokens=40_000))


def work(
    *, at: float = 0.0, due: float | None = None, cost: float = 0.1, service_class: ServiceClass = "interactive"
) -> Work:
    deadline = None if due is None else round(due * SECOND)
    return Work(
        id="w",
        lane="chat",
        kind="embed",
        arrival=round(at * SECOND),
        deadline=deadline,
        cost=cost,
        service_class=service_class,
    )


def order(*, on: bool = True, aging: float = 30.0, boost: float = 0.0) -> Order:
    return Order(on=on, aging=aging, boost=boost)


def test_it_meets_the_deadlines_that_can_be_met(serve: Serve) -> None:
    loose = arrivals("loose", 10, 6, seed=1, ttft=20.0)
    tight = arrivals("tight", 2, 6, seed=2, ttft=1.5)
    (whole, kept), (without, full) = serve([*loose, *tight], [SMALL]), serve([*loose, *tight], [SMALL], order=False)
    assert whole != without
    met = [sum(found[call.id].met for call in (*loose, *tight)) for found in (kept, full)]
    assert met[0] > 1.15 * met[1]


def test_it_puts_the_doomed_behind_the_feasible(serve: Serve) -> None:
    calls = [Call(id=f"runs{n}", at=0.0, tokens_out=400) for n in range(4)]
    calls += [Call(id="doomed", at=0.1, ttft=0.5), Call(id="feasible", at=0.2, ttft=20.0)]
    sent = [request for request, _ in serve(calls, [SMALL])[0]]
    assert sent[4:] == ["feasible", "doomed"]


def test_a_deadline_is_a_rank_and_so_is_patience() -> None:
    ranks = [
        order().rank(asked, False) / SECOND
        for asked in (
            work(at=1.0, due=9.0),
            work(at=1.0),
            work(at=1.0, service_class="standard"),
            work(at=1.0, service_class="batch"),
        )
    ]
    assert ranks == [9.0, 3.0, 11.0, 31.0]
    assert order(on=False).rank(work(at=1.0, due=9.0), True) == SECOND


def test_what_is_late_is_overtaken_by_what_arrives_within_the_aging_only() -> None:
    part = order(aging=5.0)
    late = part.rank(work(at=1.0, due=1.5), True)
    assert part.rank(work(at=5.0, due=5.9), False) < late < part.rank(work(at=5.5, due=6.1), False)
    # One whose deadline was far off gains nothing by having missed it.
    assert part.rank(work(at=1.0, due=60.0), True) == 60.0 * SECOND


def test_the_small_get_a_head_start_that_shrinks_with_their_size() -> None:
    ranks = [order(boost=2.0).rank(work(at=1.0, due=9.0, cost=cost), False) for cost in (0.01, 0.1, 1.0, 9.0)]
    assert ranks == sorted(ranks)
    assert ranks[0] < 9.0 * SECOND - SECOND
    assert 9.0 * SECOND - ranks[3] < 0.001 * SECOND
    # However small, no more than the bound.
    assert order(boost=2.0, aging=1.0).rank(work(at=1.0, due=9.0, cost=1e-30), False) == 8.0 * SECOND
    # Of no known size, nothing.
    assert order(boost=2.0).rank(work(at=1.0, due=9.0, cost=0.0), False) == 9.0 * SECOND


def test_the_head_start_shortens_the_mean_wait(serve: Serve) -> None:
    calls = arrivals("chat", 25, 5, ttft=20.0)
    (whole, kept), (plain, full) = serve(calls, [SMALL], boost=0.2), serve(calls, [SMALL])
    assert whole != plain
    waits = [sum(each.wait or 0.0 for each in found.values()) for found in (kept, full)]
    assert waits[0] < 0.9 * waits[1]


def test_a_deadline_that_has_passed_is_lost_and_one_that_cannot_be_met_is_doomed() -> None:
    fleet = FakeFleet({"chat": {"gpu": 1}})
    asked = work(due=2.0, cost=0.5)
    place = fleet.pick(asked)
    assert place is not None
    assert [order().lost(asked, round(now * SECOND)) for now in (1.9, 2.0)] == [False, True]
    assert [order().doomed(asked, place, fleet, round(now * SECOND)) for now in (1.4, 1.6)] == [False, True]
    assert not order(on=False).lost(asked, 9 * SECOND)
    assert not order(on=False).doomed(asked, place, fleet, 9 * SECOND)
    assert not order().doomed(work(), place, fleet, 9 * SECOND)
