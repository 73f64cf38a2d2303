"""Tests of sage_core.kernel.runtime.reopen: which jobs a redrive touches."""

from __future__ import annotations

import pytest

from sage_core.common.errors import UsageError
from sage_core.kernel.runtime.prepared import decode_prepared
from sage_core.kernel.runtime.reopen import affected, reopen
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime.semantics.test_rows import items, step


def test_partial_jobs_are_ready_and_what_follows_from_them_waits(flows: Flows) -> None:
    options = {"log": str(flows.home / "log"), "kind": "user"}
    tree = {
        "steps": {
            "items": {**items("a", "flaky b", "c", "d"), "partition": 2},
            "flaky": step("f.flaky", {"text": "items.text"}, on_error="skip", checkpoint=True, **{"with": options}),
            "up": step("f.upper", {"text": "flaky.text"}),
            "all": step("f.join", {"text": "up.text"}),
        }
    }
    run_id = flows.run(tree).run_id
    with flows.open_store() as store:
        prepared = decode_prepared(store.run(run_id).plan)
        names = {job.id: f"{job.stage}/{job.part}" for job in store.jobs(run_id)}
        found = affected(store, run_id, prepared)
        (partial,) = (names[id] for id in found.partial)
        part = partial[-1]
        assert partial == f"flaky/{part}"
        assert {names[id] for id in found.jobs} == {partial, f"up/{part}", "all/0"}
        with store.transaction() as tx:
            assert reopen(tx, run_id, prepared) == 1
        states = {names[job.id]: job.state for job in store.jobs(run_id)}
        assert {name for name, state in states.items() if state != "done"} == {partial, f"up/{part}", "all/0"}
        assert (states[partial], states[f"up/{part}"], states["all/0"]) == ("ready", "blocked", "blocked")


def test_rows_that_would_open_other_rows_are_refused(flows: Flows) -> None:
    options = {"log": str(flows.home / "log"), "kind": "user"}
    tree = {
        "name": "w",
        "steps": {
            "items": items("flaky b", "c"),
            "flaky": step("f.flaky", {"text": "items.text"}, on_error="skip", **{"with": options}),
            "all": step("f.join", {"text": "flaky.text"}),
            "words": step("f.split", {"text": "all.text"}),
            "up": step("f.upper", {"text": "words.word"}),
        },
    }
    run_id = flows.run(tree).run_id
    with flows.open_store() as store, pytest.raises(UsageError) as refused:
        affected(store, run_id, decode_prepared(store.run(run_id).plan))
    assert str(refused.value) == (
        f"Step 'words' opens rows out of what failed, so partitions of run {run_id} would change.\n"
        "  help: start the workflow 'w' again: what is finished is reused"
    )
