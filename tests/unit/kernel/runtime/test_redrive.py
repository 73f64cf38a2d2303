"""Tests of sage_core.kernel.runtime.redrive: a run of a queue goes back to it with what failed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sage_core import builtins
from sage_core.common.errors import UsageError
from sage_core.kernel.runtime import launch
from sage_core.kernel.runtime.redrive import Failures, failures_in, is_driven, requeue
from sage_core.kernel.runtime.runs import Runs
from sage_core.kernel.runtime.submit import Order
from sage_core.kernel.scheduler.node import node_name
from sage_core.platform.store import JobStore
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import flow_operators
from tests.unit.kernel.runtime.semantics.test_rows import items, lines, step


def serve(flows: Flows, store: JobStore, *, most: int = 100) -> int:
    """Run whatever is ready in the default queue, as a worker does; returns the number of attempts."""

    async def work() -> int:
        runs = Runs(
            store,
            store_url=flows.project.url,
            worker="w",
            modules={"flows": flow_operators},
            defaults=builtins,
            paths=flows.project.paths,
            folder=flows.home,
        )
        count = 0
        while count < most and (jobs := store.claim("w", lease_ms=600_000)):
            await runs.attempt(jobs[0])
            count += 1
        await runs.close()
        return count

    return asyncio.run(work())


def queued(flows: Flows, tree: dict[str, Any]) -> str:
    graph, run_id = flows.graph(tree), launch.new_run_id()
    prepared = launch.bind(graph, {}, flows.host, flows.project, run_id=run_id)
    return launch.enqueue(graph, prepared, run_id, host=flows.host, project=flows.project, order=Order())


def served(store: JobStore, flows: Flows) -> None:
    """Somebody has the right to serve the queue here, so nobody is started for it."""
    with store.transaction() as tx:
        tx.take_spawn(node=node_name(flows.project.config), queue="default", holder="other", lease_ms=600_000)


@pytest.mark.parametrize("on_error", ["skip", "fail"])
def test_a_queued_run_goes_back_to_its_queue(flows: Flows, on_error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Workers go where a run was started.
    monkeypatch.chdir(flows.home)
    options = {"log": str(flows.home / "log"), "kind": "user"}
    tree = {
        "steps": {
            "items": items("a", "flaky b", "c"),
            "flaky": step("f.flaky", {"text": "items.text"}, on_error=on_error, **{"with": options}),
            "all": step("f.join", {"text": "flaky.text"}),
        }
    }
    with flows.open_store() as store:
        run_id = queued(flows, tree)
        serve(flows, store)
        run = store.run(run_id)
        assert run.status == ("partial" if on_error == "skip" else "failed")
        assert not is_driven(run)
        wanted = Failures(rows=1) if on_error == "skip" else Failures(jobs=1)
        assert failures_in(store, run) == wanted

        served(store, flows)
        assert requeue(run_id, host=flows.host, project=flows.project) is False
        with pytest.raises(UsageError, match=f"Run {run_id} is running"):
            failures_in(store, store.run(run_id))
        assert serve(flows, store) == 2
        assert store.run(run_id).status == "succeeded"
        assert store.run(run_id).session == 2
    tried = lines(flows).count("a")
    assert (tried, lines(flows).count("flaky b")) == ((1, 2) if on_error == "skip" else (2, 2))


def test_a_run_in_which_nothing_failed_has_nothing_to_redrive(flows: Flows, tmp_path: Path) -> None:
    run_id = flows.run({"steps": {"items": items("a")}}).run_id
    with flows.open_store() as store:
        assert is_driven(store.run(run_id))
        with pytest.raises(UsageError) as refused:
            failures_in(store, store.run(run_id))
    assert str(refused.value).startswith(f"Nothing failed in run {run_id} (succeeded).")
