"""Tests of sage_core.kernel.runtime.progress: what a session counts as its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sage_core.testing.engines as fake
from sage_core import Context, hookimpl, operator
from sage_core.kernel.runtime.prepared import decode_prepared
from sage_core.kernel.runtime.progress import Gauge, Progress
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import flow_operators


@operator("p.say", returns="text", pure=False)
async def say(text: str, *, model: str, ctx: Context) -> str:
    return "".join([token.text async for token in ctx.client.generate(model, [{"role": "user", "content": text}])])


class Operators:
    @hookimpl
    def sage_operators(self) -> dict[str, str]:
        return {"p.say": f"{__name__}:say"}


def flows_in(home: Path) -> Flows:
    return Flows(home, {"flows": flow_operators, "operators": Operators(), "fake": fake})


def read(flows: Flows, run_id: str, *, worker: str = "nobody") -> Progress:
    with flows.open_store() as store:
        run = store.run(run_id)
        return Gauge(store, run, decode_prepared(run.plan), worker=worker, generated=lambda: 5).read()


def tree(*texts: str, use: str = "f.upper") -> dict[str, Any]:
    return {
        "models": {"m": {"backend": "fake"}},
        "steps": {
            "items": {"use": "f.world", "with": {"texts": list(texts)}},
            "act": {"use": use, "in": {"text": "items.text"}, "partition": 2},
        },
    }


def test_a_fresh_run_counts_its_rows_and_a_repeated_one_none(tmp_path: Path) -> None:
    flows = flows_in(tmp_path)
    first = read(flows, flows.run(tree("a", "b", "c", "d")).run_id)
    again = read(flows, flows.run(tree("a", "b", "c", "d")).run_id)

    assert (first.rows_computed, again.rows_computed) == (4, 0)
    assert first.parts_done == first.parts_known == again.parts_done > 0
    assert first.counts == {"done": first.parts_known + 1}
    assert (first.running, first.tokens) == ((), 5)


def test_a_claimed_job_is_running(tmp_path: Path) -> None:
    flows = flows_in(tmp_path)
    run_id = flows.run(tree("a")).run_id
    with flows.open_store() as store:
        with store.transaction() as tx:
            tx.forget_results([job.result_key for job in store.jobs(run_id) if job.result_key])
        store.resume_run(run_id)
        store.claim("w", lease_ms=1000, queue=f"run:{run_id}")
    progress = read(flows, run_id)
    assert progress.running == ("items",)
    assert progress.counts["running"] == 1


def test_tokens_of_other_processes_are_read_from_their_results_and_own_ones_are_not(tmp_path: Path) -> None:
    flows = flows_in(tmp_path)
    workflow = tree("two words", "a", use="p.say")
    workflow["steps"]["act"]["with"] = {"model": "m"}
    run_id = flows.run(workflow).run_id
    with flows.open_store() as store:
        (own,) = {job.worker or "" for job in store.jobs(run_id)}

    assert read(flows, run_id).tokens == 5 + 3
    assert read(flows, run_id, worker=own).tokens == 5
