"""A claimed job from its frames to its result, over runs moved by hand."""

from __future__ import annotations

from typing import Any

import pytest

from sage_core.common.errors import OperatorError, StaleAttempt
from sage_core.common.records import Job
from sage_core.kernel.dataflow.graph import RUN
from sage_core.kernel.runtime.job_runner import JobRun
from sage_core.kernel.runtime.results import Result
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime.one_process import OneProcess, one_process

ROWS: dict[str, Any] = {"use": "f.items", "with": {"texts": ["a", "b", "c"]}, "partition": 2}


def results(run: OneProcess) -> dict[str, list[Result]]:
    """Work all jobs; their results by stage, in the order in which they ran."""
    found: dict[str, list[Result]] = {}
    while any(job.state == "ready" for job in run.jobs()):
        job = run.claim()
        result = run.work(job)
        run.complete(job, result, fence=job.fence)
        found.setdefault(job.stage, []).append(result)
    return found


def kept(run: OneProcess, result: Result) -> dict[str, list[Any]]:
    """Every column that a result holds."""
    read = {grain: run.scope.tables.read(stored, grain, []) for grain, stored in result.tables.items()}
    return {name: list(column.values) for table in read.values() for name, column in table.columns.items()}


def test_a_result_keeps_what_others_read_and_digests_each_column(flows: Flows) -> None:
    tree = {
        "steps": {
            "rows": ROWS,
            "between": {"use": "f.upper", "in": {"text": "rows.text"}},
            "pair": {"use": "f.pair", "in": {"left": "between.text", "right": "rows.text"}},
        },
        "outputs": {"left": "pair.left"},
    }
    with one_process(flows, tree) as run:
        run.submit()
        found = results(run)
        (rows,), parts = found["rows"], found["between"]
        assert kept(run, rows) == {"rows.text": ["a", "b", "c"]}
        assert {part.start: kept(run, part) for part in parts} == {
            0: {"pair.left": ["A", "B"]},
            2: {"pair.left": ["C"]},
        }
        assert {name for part in parts for name in part.digests} == {"pair.left"}
        assert {part.start: part.stats["pair"].rows_in for part in parts} == {0: 2, 2: 1}


def test_a_join_carries_the_columns_of_both_sides_that_are_read_below(flows: Flows) -> None:
    tree = {
        "steps": {
            "rows": ROWS,
            "others": {"use": "f.items", "with": {"texts": ["c", "a", "a"]}},
            "both": {"use": "join", "in": {"left": "rows", "right": "others"}, "on": {"rows.text": "others.text"}},
            "pair": {"use": "f.pair", "in": {"left": "rows.text", "right": "others.text"}, "rows": "both"},
            "ids": {"use": "f.ident", "in": {"id": "others.id"}, "rows": "both"},
        }
    }
    with one_process(flows, tree) as run:
        run.submit()
        (both,) = results(run)["both"]
        assert kept(run, both) == {
            "rows.text": ["a", "a", "c"],
            "others.text": ["a", "a", "c"],
            "others.id": [1, 2, 0],
        }
        assert (both.stats["both"].rows_in, both.stats["both"].rows_out) == (3, 3)


def test_artifacts_that_a_step_made_are_named_by_its_result(flows: Flows) -> None:
    tree = {
        "steps": {
            "rows": ROWS,
            "book": {"use": "f.book", "in": {"text": "rows.text"}},
            "found": {"use": "f.read", "in": {"book": "book.book", "text": "rows.text"}},
        },
        "outputs": {"found": "found"},
    }
    with one_process(flows, tree) as run:
        run.submit()
        found = results(run)
        (digest,) = found["book"][0].artifacts
        assert (run.scope.artifacts.path(digest) / "book.txt").read_text(encoding="utf-8") == "a\nb\nc"
        assert [part.artifacts for part in found["found"]] == [(), ()]


def test_rows_that_failed_and_were_skipped_are_in_the_result_and_others_end_the_job(flows: Flows) -> None:
    for on_error in ("skip", "fail"):
        one = {"use": "f.fragile", "in": {"text": {"value": "bad"}}, "on_error": on_error}
        with one_process(flows, {"steps": {"one": one}}, run_id=on_error) as run:
            run.submit()
            job = run.claim()
            if on_error == "skip":
                assert [failure.kind for failure in run.work(job).failures] == ["ValueError"]
            else:
                with pytest.raises(OperatorError, match="step 'one'"):
                    run.work(job)


def test_operators_and_conditions_are_made_once_per_run_and_closed_with_it(flows: Flows) -> None:
    log = flows.home / "log"
    held = {"use": "f.held", "in": {"text": "rows.text"}, "with": {"prefix": "-", "log": str(log)}}
    with one_process(flows, {"steps": {"rows": ROWS, "held": held}}) as run:
        run.submit()
        assert len(results(run)["held"]) == 2
        step = run.prepared.graph.steps["held"]
        assert run.scope.bound(step, {}) is run.scope.bound(step, {})
        assert run.scope.bound(step, {}) is not run.scope.bound(step, {"suffix": "x"})
        assert run.scope.expression("a.b > 1") is run.scope.expression("a.b > 1")
        assert log.read_text(encoding="utf-8") == "open\n"
    assert log.read_text(encoding="utf-8") == "open\nclose\n"


def test_secrets_are_redacted_whole_even_when_one_begins_another(flows: Flows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORT", "s3cret")
    monkeypatch.setenv("LONG", "s3cret-and-more")
    leak = {"use": "f.leak", "in": {"text": {"value": "x"}}, "with": {"token": "${secret.SHORT}${secret.LONG}"}}
    with one_process(flows, {"steps": {"leak": leak}}) as run:
        assert run.scope.redact("a s3cret-and-more b s3cret c") == "a *** b *** c"


def test_rows_are_remembered_only_by_the_attempt_that_owns_the_job(flows: Flows) -> None:
    memo = {"use": "f.upper_memo", "in": {"text": {"value": "x"}}}
    with one_process(flows, {"steps": {"memo": memo}}) as run:
        run.submit()
        job = run.claim()
        run.store.give_back([(job.id, job.fence)])
        with pytest.raises(StaleAttempt):
            run.work(job)


def test_a_job_knows_whether_its_step_remembers_rows(flows: Flows) -> None:
    memo = {"use": "f.upper_memo", "in": {"text": {"value": "x"}}}
    steps = {"memo": memo, "uncached": {**memo, "cache": False}, "plain": {**memo, "use": "f.upper"}}
    with one_process(flows, {"steps": steps}) as run:
        job = Job(id=0, run_id="r", stage="memo", part=0, state="running", fence=0, attempt=1, max_attempts=1)
        made, graph = JobRun(run.scope, job), run.prepared.graph
        assert {name: made.memo(graph.steps[name], {}) is not None for name in steps} == {
            "memo": True,
            "uncached": False,
            "plain": False,
        }
        assert made.memo(graph.steps["memo"], {}) is made.memo(graph.steps["memo"], {})
        assert run.prepared.stages["memo"].root == RUN
