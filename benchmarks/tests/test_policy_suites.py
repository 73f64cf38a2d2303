"""The measures of policies, on loads that are over in a second."""

from __future__ import annotations

from pathlib import Path

import pytest
from sage_bench.measures.attainment import Attainment
from sage_bench.measures.control_plane import ControlPlane
from sage_bench.measures.decisions import Decisions
from sage_bench.measures.isolation import Isolation
from sage_bench.suite import Bench
from sage_bench.traffic import WORKLOADS, attainment, serve


def test_isolation_compares_with_and_without_batch(tmp_path: Path) -> None:
    bench = Bench(work=tmp_path, seed=1, repeat=2)
    fifo = Isolation(scheduler="fifo", rate=30.0, seconds=3.0).measure(bench)
    hybrid = Isolation(scheduler="hybrid", rate=30.0, seconds=3.0, aim=1.5).measure(bench)
    assert fifo.figures[0].value > 5.0 > hybrid.figures[0].value
    assert [len(each.values) for each in hybrid.figures] == [2] * 6
    assert hybrid.figures[0].met in (True, False)


def test_attainment_is_told_for_each_policy(tmp_path: Path) -> None:
    policies = (("fifo", ""), ("slo_aware", "lmetric"))
    measure = Attainment(workload="two-deadlines", rate=200.0, seconds=2.0, policies=policies)
    found = measure.measure(Bench(work=tmp_path, seed=0, repeat=1))
    assert [each.name for each in found.figures] == ["fifo", "slo_aware + lmetric"]
    assert all(0.0 <= each.value <= 1.0 for each in found.figures)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_is_the_same_for_the_same_seed(name: str) -> None:
    make = WORKLOADS[name]
    assert make(1, 20.0, 2.0) == make(1, 20.0, 2.0) != make(2, 20.0, 2.0)


def test_attainment_is_the_least_over_kinds_of_calls() -> None:
    calls = WORKLOADS["two-deadlines"](0, 20.0, 2.0)
    answers = serve(calls, "fifo").answers
    assert attainment(answers) == 1.0
    late = [each for each in answers if not each.call.id.startswith("soon")]
    assert attainment(late) == 1.0


def test_decisions_are_timed_over_equal_runs(tmp_path: Path) -> None:
    measure = Decisions(schedulers=("fifo", "hybrid"), tenants=8, engines=4, queued=100, seconds=1.0)
    found = measure.measure(Bench(work=tmp_path, seed=0, repeat=2))
    assert [each.name for each in found.figures[:4]] == [
        "fifo, all calls, median",
        "fifo, all calls, p99",
        "fifo, dispatches, median",
        "fifo, dispatches, p99",
    ]
    assert all(0.0 < each.value < 1e6 for each in found.figures)


def test_the_control_plane_is_timed_over_equal_runs(tmp_path: Path) -> None:
    measure = ControlPlane(policies=(("priority", "default"),), tenants=8, engines=4, queued=100, seconds=2.0)
    found = measure.measure(Bench(work=tmp_path, seed=0, repeat=2))
    names = [each.name.removeprefix("priority, default, ") for each in found.figures]
    assert names[:4] == [
        "a decision, median",
        "a decision, p99",
        "steps with one dispatch, median",
        "steps with one dispatch, p99",
    ]
    assert all(0.0 < each.value < 1e6 for each in found.figures)
    assert found.facts["waiting_at_the_end"]["priority, default"] > 100
