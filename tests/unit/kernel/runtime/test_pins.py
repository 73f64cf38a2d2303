"""Tests of sage_core.kernel.runtime.pins: what a run is pinned to, and what other code does with it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sage_core import __version__
from sage_core.kernel.dataflow.graph import Graph
from sage_core.kernel.runtime import launch
from sage_core.kernel.runtime.drive import Settings
from sage_core.kernel.runtime.pins import (
    OtherCode,
    changes_since,
    code_here,
    decode_pins,
    differences,
    graph_changes,
    refuse_other_code,
    repin,
)
from sage_core.kernel.runtime.prepared import decode_prepared
from sage_core.platform.store import JobStore
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime.semantics.test_rows import items, step
from tests.unit.kernel.runtime.test_redrive import queued, serve

TREE = {"steps": {"items": items("a", "b"), "up": step("f.upper", {"text": "items.text"})}}


def load(path: Path, profile: str | None) -> Graph:
    raise AssertionError("a run that came from no file has no file to read")


def age(store: JobStore, run_id: str, version: str = "0.0.1") -> None:
    """As if the run had been started under another version of SAGE."""
    run = store.run(run_id)
    with store.transaction() as tx:
        tx.pin_run(run_id, pins=msgspec.msgpack.encode({**decode_pins(run.pins), "sage-core": version}), plan=run.plan)


def test_a_run_keeps_the_code_of_sage_and_of_its_operators(flows: Flows) -> None:
    run_id = flows.run(TREE).run_id
    with flows.open_store() as store:
        run = store.run(run_id)
    prepared = decode_prepared(run.plan)
    pins = decode_pins(run.pins)
    assert pins == code_here(prepared, flows.host)
    assert pins["sage-core"] == __version__
    assert pins["tests"].startswith(("source:", "file:", "wheel:"))
    refuse_other_code(run, prepared, flows.host)
    assert changes_since(run, flows.host, load) == ((), ())


def test_differences_name_the_package_what_it_was_and_what_it_is() -> None:
    old = {"sage-core": "0.1", "sage_rag": "wheel:sage_rag-0.1.0:aaaabbbbcccc", "gone": "version:1", "op": "version:2"}
    new = {"sage-core": "0.1", "sage_rag": "source:sage_rag:ddddeeeeffff", "op": "version:3", "more": "version:1"}
    assert differences(old, new) == (
        "op: 2 → 3",
        "sage_rag: sage_rag-0.1.0 (aaaabbbb) → sage_rag (ddddeeee)",
    )
    assert decode_pins(b"") == {}


def test_a_worker_with_other_code_never_runs_a_job_of_the_run(
    flows: Flows, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(flows.home)
    with flows.open_store() as store:
        run_id = queued(flows, TREE)
        age(store, run_id)
        assert serve(flows, store) == 1
        (job,) = store.jobs(run_id)
        # Put off unharmed: no attempt was spent, and nobody here takes it up again at once.
        assert (job.state, job.attempt, job.error) == ("ready", 0, "")
        assert job.run_at - store.now() > 5_000
        assert store.attempts(run_id) == []
        assert store.run(run_id).status == "queued"
        (line,) = [record for record in caplog.records if record.message.startswith("run_pinned")]
        assert f"sage-core: 0.0.1 → {__version__}" in line.message

        with pytest.raises(OtherCode, match="sage-core: 0"):
            refuse_other_code(store.run(run_id), decode_prepared(store.run(run_id).plan), flows.host)


def test_a_run_that_goes_on_under_other_code_keeps_its_results_apart(flows: Flows) -> None:
    run_id = flows.run(TREE).run_id
    with flows.open_store() as store:
        age(store, run_id)
        run = store.run(run_id)
        before = decode_prepared(run.plan)
        with store.transaction() as tx:
            repin(tx, run, flows.host)
        run = store.run(run_id)
    after = decode_prepared(run.plan)
    refuse_other_code(run, after, flows.host)
    assert set(before.digests.values()).isdisjoint(after.digests.values())
    assert set(before.row_digests.values()).isdisjoint(after.row_digests.values())


def test_what_became_of_a_workflow_is_told_step_by_step(flows: Flows) -> None:
    old = flows.graph(TREE)
    changed = {
        "params": {"p": {"type": "string", "default": "x"}},
        "steps": {"items": items("a", "c"), "low": step("f.upper", {"text": "items.text"})},
    }
    assert graph_changes(old, flows.graph(changed)) == (
        "step 'low' added",
        "step 'up' removed",
        "step 'items' changed: options",
        "params changed",
        "outputs changed",
    )
    assert graph_changes(old, old) == ()


def test_a_file_that_changed_vanished_or_broke_is_told(flows: Flows) -> None:
    path = flows.home / "w.toml"
    text = 'sage = 1\n[steps.items]\nuse = "f.items"\nwith = { texts = ["a"] }\n'
    path.write_text(text)
    graph = flows.graph(path)
    run_id = launch.new_run_id()
    prepared = launch.bind(graph, {}, flows.host, flows.project, run_id=run_id)
    launch.run(
        graph,
        prepared,
        run_id,
        host=flows.host,
        project=flows.project,
        settings=Settings(workers=0),
        watch=lambda progress: None,
        workflow=path,
    )
    with flows.open_store() as store:
        run = store.run(run_id)

    def changes() -> tuple[str, ...]:
        return changes_since(run, flows.host, lambda path, profile: flows.graph(path, profile=profile))[0]

    assert changes() == ()
    path.write_text(text.replace('"a"', '"b"'))
    assert changes() == ("step 'items' changed: options",)
    path.write_text(text.replace("f.items", "f.itms"))
    assert changes()[0].startswith(f"{path} cannot be read any more: ")
    path.unlink()
    assert changes() == (f"{path} is gone",)
