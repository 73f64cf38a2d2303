"""How jobs come to be, wait for one another, and are settled without work; moved by hand over a real store."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sage_core.common.errors import RunFailed, StaleAttempt
from sage_core.common.records import RowFailure
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import flow_operators
from tests.unit.kernel.runtime.one_process import OneProcess, one_process


def rows(*texts: str, **more: Any) -> dict[str, Any]:
    return {"use": "f.items", "with": {"texts": list(texts)}, **more}


CHAIN: dict[str, Any] = {
    "steps": {
        "rows": rows("a", "b", "c", partition=1),
        "up": {"use": "f.upper", "in": {"text": "rows.text"}, "checkpoint": True},
        "again": {"use": "f.fragile", "in": {"text": "up.text"}},
        "all": {"use": "f.join", "in": {"text": "again.text"}},
        "last": {"use": "f.upper", "in": {"text": "all.text"}},
    }
}


def edges(run: OneProcess) -> set[str]:
    """What waits for what, as ``stage/part < stage/part``."""
    names = {job.id: f"{job.stage}/{job.part}" for job in run.jobs()}
    return {f"{names[before]} < {names[after]}" for before, after in run.store.edges(run.run_id)}


def test_only_single_jobs_exist_before_a_source_has_run(flows: Flows) -> None:
    with one_process(flows, CHAIN) as run:
        run.submit()
        assert run.states() == {"rows": ["ready"], "all": ["blocked"], "last": ["blocked"]}
        # What waits for partitions that are not known yet waits for what will open them.
        assert edges(run) == {"rows/0 < all/0", "all/0 < last/0"}


def test_a_finished_source_opens_partitions_that_wait_for_their_own_part_only(flows: Flows) -> None:
    with one_process(flows, CHAIN) as run:
        run.submit()
        run.one()
        assert run.states() == {
            "rows": ["done"],
            "up": ["ready"] * 3,
            "again": ["blocked"] * 3,
            "all": ["blocked"],
            "last": ["blocked"],
        }
        parts = range(3)
        assert edges(run) == (
            {"rows/0 < all/0", "all/0 < last/0"}
            | {f"rows/0 < {stage}/{part}" for stage in ("up", "again") for part in parts}
            | {f"up/{part} < again/{part}" for part in parts}
            | {f"again/{part} < all/0" for part in parts}
        )
        assert [(job.start, job.stop) for job in run.jobs("up")] == [(0, 1), (1, 2), (2, 3)]


def test_a_partition_becomes_ready_with_its_own_predecessor_and_a_collect_with_the_last(flows: Flows) -> None:
    with one_process(flows, CHAIN) as run:
        run.submit()
        run.one()
        done = run.one()
        assert done.stage == "up"
        assert [job.part for job in run.jobs("again") if job.state == "ready"] == [done.part]
        run.all()
        assert run.states() == {"rows": ["done"], "up": ["done"] * 3, "again": ["done"] * 3, "all": ["done"]} | {
            "last": ["done"]
        }


def test_after_waits_for_every_partition(flows: Flows) -> None:
    tree = {
        "steps": {
            "rows": rows("a", "b", partition=1),
            "first": {"use": "f.sink", "in": {"text": "rows.text"}, "with": {"log": ""}},
            "second": {"use": "f.upper", "in": {"text": "rows.text"}, "after": ["first"]},
        }
    }
    with one_process(flows, tree) as run:
        run.submit()
        run.one()
        crossed = {f"first/{before} < second/{after}" for before in (0, 1) for after in (0, 1)}
        assert crossed <= edges(run)
        assert run.all() == ["first", "first", "second", "second"]


def test_a_source_without_rows_opens_no_partition_and_frees_what_collects(flows: Flows) -> None:
    tree = {"steps": {"rows": rows(), "all": {"use": "f.join", "in": {"text": "rows.text"}}}}
    with one_process(flows, tree) as run:
        run.submit()
        assert run.all() == ["rows", "all"]


def test_what_an_earlier_run_left_is_reused_through_all_that_follows(flows: Flows) -> None:
    with one_process(flows, CHAIN, run_id="r1") as run:
        run.submit()
        run.all()
        keys = {(job.stage, job.part): job.result_key for job in run.jobs()}
    with one_process(flows, CHAIN, run_id="r2") as run:
        run.submit()
        # One transaction: the source is found, which opens the partitions, which are found, and so on to the end.
        assert {state for states in run.states().values() for state in states} == {"reused"}
        assert {(job.stage, job.part): job.result_key for job in run.jobs()} == keys


def test_reuse_stops_where_a_value_differs_and_goes_on_beside_it(flows: Flows) -> None:
    with one_process(flows, CHAIN, run_id="r1") as run:
        run.submit()
        run.all()
    changed = {"steps": {**CHAIN["steps"], "rows": rows("a", "x", "c", partition=1)}}
    with one_process(flows, changed, run_id="r2") as run:
        run.submit()
        assert run.states()["rows"] == ["ready"]
        run.one()
        assert run.states() == {
            "rows": ["done"],
            "up": ["reused", "ready", "reused"],
            "again": ["reused", "blocked", "reused"],
            "all": ["blocked"],
            "last": ["blocked"],
        }


def test_a_result_with_a_failure_that_may_go_away_is_reused_by_no_other_run(flows: Flows) -> None:
    tree = {"steps": {"one": {"use": "f.upper", "in": {"text": {"value": "x"}}, "on_error": "skip"}}}
    for kind, state in (("TimeoutError", "ready"), ("ValueError", "reused")):
        home = Flows(flows.home / kind, {"flows": flow_operators})
        with one_process(home, tree, run_id="r1") as run:
            run.submit()
            job = run.claim()
            failure = RowFailure(step="one", row="", kind=kind, message="")
            run.complete(job, msgspec.structs.replace(run.work(job), failures=(failure,)), fence=job.fence)
        with one_process(home, tree, run_id="r2") as run:
            run.submit()
            assert run.states() == {"one": [state]}


def test_a_lost_attempt_changes_nothing(flows: Flows) -> None:
    with one_process(flows, CHAIN) as run:
        run.submit()
        job = run.claim()
        result = run.work(job)
        run.store.give_back([(job.id, job.fence)])
        with pytest.raises(StaleAttempt):
            run.complete(job, result, fence=job.fence)
        assert run.states() == {"rows": ["ready"], "all": ["blocked"], "last": ["blocked"]}


def test_a_reopened_source_is_held_against_the_partitions_it_opened(flows: Flows) -> None:
    tree = {"steps": {**CHAIN["steps"], "rows": {**CHAIN["steps"]["rows"], "use": "f.world"}}}
    with one_process(flows, tree) as run:
        run.submit()
        first = run.claim()
        result = run.work(first)
        run.complete(first, result, fence=first.fence)
        reopen(run)
        # The same rows: nothing is inserted twice, and what had been done in between stays.
        again = run.claim()
        assert again.stage == "rows"
        run.complete(again, result, fence=again.fence)
        assert run.states()["up"] == ["ready"] * 3
        reopen(run)
        third = run.claim()
    fewer = {"steps": {**tree["steps"], "rows": rows("a", "b", partition=1)}}
    with one_process(flows, fewer, run_id="other") as other:
        other.submit()
        shorter = other.work(other.claim())
    with one_process(flows, tree) as run, pytest.raises(RunFailed, match="the rows of step 'rows' changed since"):
        run.complete(third, shorter, fence=third.fence)


def reopen(run: OneProcess) -> None:
    """Lose the source's result, as a resume does with one whose files are damaged."""
    with run.store.transaction() as tx:
        tx.forget_results([run.jobs("rows")[0].result_key or ""])
        assert tx.reopen_lost(run.run_id) == 1


def test_a_job_needs_the_most_of_its_steps_and_a_job_without_needs_runs_anywhere(flows: Flows) -> None:
    needy = {
        "steps": {
            "rows": rows("a", "b", partition=1),
            "up": {"use": "f.upper", "in": {"text": "rows.text"}, "needs": {"cpu": 0.5, "memory": "1MiB"}},
            "again": {"use": "f.upper", "in": {"text": "up.text"}, "needs": {"cpu": 0.25}},
            "all": {"use": "f.join", "in": {"text": "again.text"}},
        }
    }
    with one_process(flows, needy) as run:
        run.submit()
        run.all()
        assert run.states() == {"rows": ["done"], "up": ["done"] * 2, "all": ["done"]}
        assert {job.stage: job.needs for job in run.jobs()} == {
            "rows": "",
            "up": '{"cpu":0.5,"memory":1048576}',
            "all": "",
        }


def test_a_job_that_nothing_follows_is_completed_in_a_transaction_of_its_own(flows: Flows) -> None:
    with one_process(flows, CHAIN) as run:
        run.submit()
        run.one()
        job, last = run.claim(), None
        assert run.manager.is_followed(run.jobs("rows")[0])
        assert run.manager.is_followed(job)
        assert not run.manager.is_followed(run.jobs("last")[0])
        run.complete(job, run.work(job), fence=job.fence)
        while last is None or last.stage != "last":
            last = run.claim()
            if last.stage != "last":
                run.complete(last, run.work(last), fence=last.fence)
        result, key = run.work(last), run.manager.key(run.store, last)
        run.manager.complete_last(run.store, last, key, result)
        assert run.states()["last"] == ["done"]
        assert run.store.results([key]) == {key: result.encode()}
        with pytest.raises(StaleAttempt):
            run.manager.complete_last(run.store, last, key, result)
