"""Tests of sage_core.kernel.runtime.cancellation: one job is cancelled; its run goes on or ends, on both databases."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from sage_core.common.config import Config, StoreConfig
from sage_core.common.errors import StaleAttempt, UsageError
from sage_core.common.records import Job, JobState
from sage_core.kernel.runtime.cancellation import cancel_job
from sage_core.kernel.runtime.redrive import Failures, failures_in, requeue
from sage_core.platform.store import JobStore
from sage_core.testing.flows import Flows
from tests.postgres import schema_url
from tests.unit.kernel.runtime import drive_operators, flow_operators
from tests.unit.kernel.runtime.test_redrive import queued, serve, served


@pytest.fixture(params=["sqlite", "postgresql"])
def flows(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Flows:
    # Workers go where a run was started.
    monkeypatch.chdir(tmp_path)
    url = schema_url(tmp_path) if request.param == "postgresql" else ""
    return Flows(tmp_path, {"flows": flow_operators}, config=Config(store=StoreConfig(url=url)))


def tree(on_error: str = "skip", **options: Any) -> dict[str, Any]:
    """Six rows in jobs of one or two, and what collects them."""
    return {
        "steps": {
            "items": {"use": "f.items", "with": {"texts": list("abcdef")}},
            "up": {"use": "f.upper", "in": {"text": "items.text"}, "partition": 2, "on_error": on_error, **options},
            "all": {"use": "f.join", "in": {"text": "up.text"}},
        },
        "outputs": {"all": "all"},
    }


def opened(flows: Flows, store: JobStore, workflow: dict[str, Any]) -> tuple[str, list[Job]]:
    """A queued run whose rows are known, and the jobs over them as a worker holds them."""
    run_id = queued(flows, workflow)
    served(store, flows)
    assert serve(flows, store, most=1) == 1
    jobs = store.claim("slow", lease_ms=600_000, limit=9)
    assert {job.stage for job in jobs} == {"up"}
    return run_id, jobs


def test_a_running_job_is_skipped_and_the_collect_behind_it_runs(flows: Flows) -> None:
    with flows.open_store() as store:
        run_id, jobs = opened(flows, store, tree())
        victim, *others = jobs
        rows = victim.stop - victim.start
        done = cancel_job(victim.id, host=flows.host, project=flows.project)
        assert (done.run_id, done.state, done.failures) == (run_id, "done", rows)
        with pytest.raises(StaleAttempt):
            store.fail(victim.id, victim.fence, "late", retry_in_ms=0)
        store.give_back([(job.id, job.fence) for job in others])
        assert serve(flows, store) == len(others) + 1, "those that are left, and the collect"
        run = store.run(run_id)
        assert (run.status, run.error) == ("partial", "")
        outcomes = [each.outcome for each in store.attempts_of(victim.id)]
        assert outcomes == ["cancelled"]

        # A redrive computes just those rows; the next run does not find the skipped ones.
        assert failures_in(store, run) == Failures(rows=rows)
        requeue(run_id, host=flows.host, project=flows.project)
        serve(flows, store)
        assert store.run(run_id).status == "succeeded"
        again = queued(flows, tree())
        assert store.run(again).status == "queued"
        serve(flows, store)
        assert (store.run(again).status, store.run(again).outputs) == ("succeeded", store.run(run_id).outputs)


def test_the_last_job_of_a_run_ends_it(flows: Flows) -> None:
    with flows.open_store() as store:
        run_id, jobs = opened(flows, store, tree())
        for job in jobs:
            assert cancel_job(job.id, host=flows.host, project=flows.project).failures == job.stop - job.start
        (collect,) = [job for job in store.jobs(run_id) if job.stage == "all"]
        assert collect.state == "ready", "released, though no row is left"
        ended = cancel_job(collect.id, host=flows.host, project=flows.project)
        assert (ended.state, ended.error) == ("failed", "cancelled; step 'all' skips no rows")
        run = store.run(run_id)
        assert (run.status, run.error) == ("failed", "cancelled; step 'all' skips no rows")


def test_a_job_whose_step_may_not_skip_fails_its_run(flows: Flows) -> None:
    with flows.open_store() as store:
        run_id, jobs = opened(flows, store, tree("fail"))
        done = cancel_job(jobs[1].id, host=flows.host, project=flows.project)
        assert (done.state, done.error) == ("failed", "cancelled; step 'up' skips no rows")
        assert store.run(run_id).status == "failed"
        states = {job.stage: job.state for job in store.jobs(run_id)}
        assert states == {"items": "done", "up": "cancelled", "all": "cancelled"}
        with pytest.raises(UsageError, match=f"Job {jobs[0].id} is cancelled"):
            cancel_job(jobs[0].id, host=flows.host, project=flows.project)


def test_a_source_that_is_cancelled_before_it_ran_opens_no_rows(flows: Flows) -> None:
    workflow = tree()
    workflow["steps"]["items"]["on_error"] = "skip"
    with flows.open_store() as store:
        run_id = queued(flows, workflow)
        served(store, flows)
        (source,) = [job for job in store.jobs(run_id) if job.state == "ready"]
        assert cancel_job(source.id, host=flows.host, project=flows.project).failures == 1
        assert serve(flows, store) == 1
        assert store.run(run_id).status == "partial"


def test_a_redriven_job_that_is_cancelled_keeps_what_it_had(flows: Flows) -> None:
    with flows.open_store() as store:
        run_id, jobs = opened(flows, store, tree())
        rows = cancel_job(jobs[0].id, host=flows.host, project=flows.project).failures
        store.give_back([(job.id, job.fence) for job in jobs[1:]])
        serve(flows, store)
        before = store.job(jobs[0].id).result_key
        requeue(run_id, host=flows.host, project=flows.project)
        again = cancel_job(jobs[0].id, host=flows.host, project=flows.project)
        assert (again.state, again.failures, store.job(jobs[0].id).result_key) == ("done", rows, before)
        serve(flows, store)
        assert store.run(run_id).status == "partial"


@pytest.mark.parametrize("on_error", ["skip", "fail"])
def test_a_run_that_is_driven_here_is_told_of_its_running_job(tmp_path: Path, on_error: str) -> None:
    flows = Flows(tmp_path, {"drive": drive_operators})
    flag = str(tmp_path / "flag")
    workflow: dict[str, Any] = {
        "steps": {
            "numbers": {"use": "d.numbers", "with": {"n": 3}},
            "act": {"use": "d.hang", "in": {"text": "numbers.text"}, "with": {"flag": flag}, "partition": 1},
        },
        "outputs": {"all": "act"},
    }
    workflow["steps"]["act"]["on_error"] = on_error
    found: list[JobState] = []

    def cancel() -> None:
        with flows.open_store() as store:
            while not (held := store.jobs_found(state="running")) or held[0].stage != "act":
                threading.Event().wait(0.02)
        found.append(cancel_job(held[0].id, host=flows.host, project=flows.project).state)

    thread = threading.Thread(target=cancel)
    thread.start()
    report = flows.run(workflow)
    thread.join()
    with flows.open_store() as store:
        states = sorted(job.state for job in store.jobs(report.run_id) if job.stage == "act")
    if on_error == "skip":
        assert (found, report.status, report.outputs) == (["done"], "partial", {"all": ["1", "2"]})
    else:
        # What could still have run is left: the run has failed.
        assert (found, report.status, states) == (["failed"], "failed", ["cancelled", "cancelled", "failed"])
        assert report.error == "cancelled; step 'act' skips no rows"
