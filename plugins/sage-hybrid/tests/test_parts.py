"""Each part of the policy on a workload where it matters: how the decision log changes when it is switched off."""

from __future__ import annotations

from collections.abc import Sequence

from sage_hybrid.policy import HybridSchedulingPolicy

from sage_core import Capacity
from sage_core.testing import Answer, BatchingModel, Call, Simulation, arrivals, percentile

SMALL = BatchingModel(capacity=Capacity(sequences=4, prefill_tokens=4_096, kv_tokens=40_000))


def serve(
    calls: Sequence[Call], engines: Sequence[BatchingModel], **options: bool | float
) -> tuple[list[tuple[str, str]], dict[str, Answer]]:
    """Request and engine of each dispatch in order, and the answers."""
    simulation = Simulation(lambda name: HybridSchedulingPolicy(**options), engines)  # type: ignore[arg-type]
    simulation.submit(calls)
    simulation.run()
    assert (simulation.manager.held, simulation.manager.faults) == (0, ())
    return simulation.dispatched, simulation.answers


def test_release_keeps_the_pace_of_streams_in_a_burst() -> None:
    calls = arrivals("chat", 60, 10, tokens_in=1_000, tpot=0.03)
    engines = [BatchingModel()] * 2
    (whole, kept), (without, full) = serve(calls, engines), serve(calls, engines, release=False)
    assert whole != without
    paces = [percentile([each.tpot or 0.0 for each in found.values()], 0.9) for found in (kept, full)]
    assert paces[0] <= 0.03 < paces[1]


def test_release_never_closes_an_engine_without_targets() -> None:
    calls = arrivals("bulk", 60, 10, tokens_in=1_000, service_class="batch")
    assert serve(calls, [BatchingModel()])[0] == serve(calls, [BatchingModel()], release=False)[0]


def test_order_meets_the_deadlines_that_can_be_met() -> None:
    loose = arrivals("loose", 10, 6, seed=1, ttft=20.0)
    tight = arrivals("tight", 2, 6, seed=2, ttft=1.5)
    (whole, kept), (without, full) = serve([*loose, *tight], [SMALL]), serve([*loose, *tight], [SMALL], order=False)
    assert whole != without
    met = [sum(found[call.id].met for call in (*loose, *tight)) for found in (kept, full)]
    assert met[0] > 1.15 * met[1]


def test_order_puts_the_doomed_behind_the_feasible() -> None:
    calls = [Call(id=f"runs{n}", at=0.0, tokens_out=400) for n in range(4)]
    calls += [Call(id="doomed", at=0.1, ttft=0.5), Call(id="feasible", at=0.2, ttft=20.0)]
    order = [request for request, _ in serve(calls, [SMALL])[0]]
    assert order[4:] == ["feasible", "doomed"]


def test_allocate_puts_people_before_batch_and_keeps_a_floor_for_it() -> None:
    bulk = arrivals("bulk", 20, 6, service_class="batch")
    chat = arrivals("chat", 8, 12, ttft=40.0)
    calls = [*bulk, *chat]
    (whole, _), (without, _) = serve(calls, [SMALL], batch=0.2), serve(calls, [SMALL], allocate=False)
    assert whole != without
    last = max(n for n, (request, _) in enumerate(whole) if request.startswith("chat"))
    before = [request for request, _ in whole[:last] if request.startswith("bulk")]
    # Of the engine-seconds of some 96 chats a fifth, beside what came while nobody else was there.
    assert 8 <= len(before) <= 25


def test_allocate_shares_between_tenants() -> None:
    loud = arrivals("loud", 40, 3, tenant="loud")
    quiet = arrivals("quiet", 4, 3, tenant="quiet")
    (whole, kept), (without, full) = serve([*loud, *quiet], [SMALL]), serve([*loud, *quiet], [SMALL], allocate=False)
    assert whole != without
    waits = [max(found[call.id].wait or 0.0 for call in quiet) for found in (kept, full)]
    assert waits[0] < 0.5 * waits[1]


def test_place_sends_a_prompt_where_few_tokens_wait() -> None:
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


def test_overload_sheds_the_costliest_of_the_lowest_class() -> None:
    bulk = arrivals("bulk", 30, 20, service_class="batch")
    chat = arrivals("chat", 2, 20, ttft=30.0)
    (whole, kept), (without, full) = (
        serve([*bulk, *chat], [SMALL], shed=30.0),
        serve([*bulk, *chat], [SMALL], overload=False),
    )
    assert whole != without
    shed = [each for each in kept.values() if each.outcome == "shed"]
    assert {each.call.service_class for each in shed} == {"batch"}
    assert all(30.0 <= (each.retry_after or 0.0) <= 3_600.0 for each in shed)
    served = [each.call.tokens_out for each in kept.values() if each.call.service_class == "batch" and each.wait]
    assert sum(each.call.tokens_out for each in shed) / len(shed) > 1.5 * sum(served) / len(served)
    assert all(each.outcome == "done" for each in full.values())


def test_overload_sheds_nothing_in_a_burst_that_passes() -> None:
    _, answers = serve(arrivals("bulk", 24, 1, service_class="batch"), [SMALL], shed=5.0)
    assert {each.outcome for each in answers.values()} == {"done"}
    assert max(each.wait or 0.0 for each in answers.values()) > 5.0
