"""Tests of sage_core.kernel.runtime.retention: what is removed, and what an unfinished run keeps, on both databases."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from sage_core.common.config import Config, RetentionConfig, StoreConfig
from sage_core.kernel.runtime.results import decode_result
from sage_core.kernel.runtime.retention import Pruned, prune
from sage_core.platform.shared import artifacts_of
from sage_core.platform.store import JobStore
from sage_core.testing.flows import Flows
from tests.postgres import schema_url
from tests.unit.kernel.runtime import flow_operators
from tests.unit.kernel.runtime.one_process import one_process
from tests.unit.kernel.runtime.semantics.test_rows import items, lines, step

#: Keeps nothing that has ended.
NOTHING = RetentionConfig(runs_days=0, memo_days=0)


@pytest.fixture(params=["sqlite", "postgres"])
def flows(request: pytest.FixtureRequest, tmp_path: Path) -> Flows:
    url = "" if request.param == "sqlite" else schema_url(tmp_path)
    return Flows(tmp_path, {"flows": flow_operators}, config=Config(store=StoreConfig(url=url)))


def tree(flows: Flows, *texts: str) -> dict[str, Any]:
    log = {"log": str(flows.home / "log")}
    return {
        "steps": {
            "items": items(*texts),
            "up": step("f.upper", {"text": "items.text"}, checkpoint=True, **{"with": log}),
            "memo": step("f.upper_memo", {"text": "up.text"}),
            "book": step("f.book", {"text": "up.text"}),
        },
        "outputs": {"memo": "memo.text", "book": "book"},
    }


def pruned(flows: Flows, store: JobStore, config: RetentionConfig = NOTHING, **more: Any) -> Pruned:
    """Prune as if all that is there had been there for an hour."""
    artifacts = artifacts_of(flows.project.paths.artifacts, store)
    old = time.time() - 3600
    for place in flows.project.paths.artifacts.glob("??/*"):
        os.utime(place, (old, old))
    return prune(store, artifacts, config, grace_s=0, **more)


def files_of(store: JobStore) -> set[str]:
    return {digest for body in store.result_bodies() for digest in decode_result(body).files}


def test_ended_runs_go_with_all_that_only_they_had(flows: Flows) -> None:
    run_id = flows.run(tree(flows, "a", "b" * 70_000)).run_id
    with flows.open_store() as store:
        assert files_of(store)
        counts = pruned(flows, store, dry_run=True, thorough=True)
        assert (counts.runs, counts.memos) == (1, 2)
        assert counts.results == len(store.jobs(run_id)) == 4
        assert counts.artifacts == len(list(flows.project.paths.artifacts.glob("??/*"))) > 0
        assert len(store.runs()) == 1

        # What is counted goes.
        assert pruned(flows, store, thorough=True) == counts
        assert store.runs() == []
        assert store.jobs_found() == []
        assert list(store.result_bodies()) == []
        assert list(flows.project.paths.artifacts.glob("??/*")) == []
        assert store.blobs() == set()
        assert pruned(flows, store, thorough=True) == Pruned()
    before = len(lines(flows))
    assert flows.run(tree(flows, "a", "b" * 70_000)).status == "succeeded"
    assert len(lines(flows)) == before + 2


def test_what_is_young_or_kept_for_ever_stays(flows: Flows) -> None:
    flows.run(tree(flows, "a"))
    with flows.open_store() as store:
        assert pruned(flows, store, RetentionConfig(), thorough=True) == Pruned()
        assert pruned(flows, store, RetentionConfig(runs_days=1, memo_days=1)) == Pruned()
        assert len(store.runs()) == 1


def test_a_run_in_progress_keeps_all_it_has_and_all_it_found(flows: Flows) -> None:
    flows.run(tree(flows, "a", "b" * 70_000))
    with one_process(flows, tree(flows, "a", "b" * 70_000), run_id="live") as run:
        run.submit()
        # Everything was found in the run that ended, so that the one in progress stands on its results alone.
        assert {state for states in run.states().values() for state in states} == {"reused"}
        wanted, files = {job.result_key for job in run.jobs()}, files_of(run.store)
        gone = pruned(flows, run.store, thorough=True)
        assert (gone.runs, gone.results, gone.artifacts) == (1, 0, 0)
        assert run.store.results([key for key in wanted if key]).keys() == wanted
        artifacts = artifacts_of(flows.project.paths.artifacts, run.store)
        assert files
        for digest in files:
            artifacts.verify(digest)
    with flows.open_store() as store:
        assert [found.id for found in store.runs()] == ["live"]


def test_a_run_half_done_goes_on_after_a_prune(flows: Flows) -> None:
    flows.run(tree(flows, "c"))
    with one_process(flows, tree(flows, "a", "b" * 70_000), run_id="live") as run:
        run.submit()
        run.one()
        run.one()
        assert pruned(flows, run.store, thorough=True).runs == 1
        assert sorted(run.all()) == ["book", "memo"]
        assert {state for states in run.states().values() for state in states} == {"done"}


def test_without_a_row_to_remove_a_tick_reads_no_results(flows: Flows) -> None:
    flows.run(tree(flows, "a"))
    stray = flows.project.paths.artifacts / "ab" / ("ab" * 16)
    stray.parent.mkdir(parents=True)
    stray.write_text("of nobody")
    with flows.open_store() as store:
        assert pruned(flows, store, RetentionConfig(runs_days=1)).artifacts == 0
        assert stray.exists()
        assert pruned(flows, store, RetentionConfig(runs_days=1), thorough=True).artifacts == 1
        assert not stray.exists()
