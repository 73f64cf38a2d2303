"""What a run's end-to-end aim leaves to each of its model calls: the aim, less what comes after them."""

from __future__ import annotations

import time
from collections.abc import Mapping

from sage_core.common.clock import MILLISECOND, SECOND
from sage_core.kernel.dataflow.graph import Graph
from sage_core.kernel.dataflow.plan import inputs_of, owner
from sage_core.kernel.runtime.results import decode_result
from sage_core.platform.records import StoredRun
from sage_core.platform.store import JobStore

#: Jobs of an earlier run up to which reading how long its steps took is cheap.
READ = 64


def run_deadline(run: StoredRun, end_to_end: float | None) -> int | None:
    """Monotonic ns by which a run is to be over, or None where it aims at nothing.

    One that was resumed has as long again: what it aimed at is past, and its calls are not all late for that.
    """
    if end_to_end is None:
        return None
    gone = 0
    if run.session == 1 and run.created_at:
        gone = max(0, time.time_ns() - run.created_at * MILLISECOND)
    return time.monotonic_ns() - gone + round(end_to_end * SECOND)


def seconds_after(graph: Graph, seconds: Mapping[str, float]) -> dict[str, float]:
    """For each step, the seconds of the longest path of steps after it; a step that is not in `seconds` takes none."""
    after = dict.fromkeys(graph.steps, 0.0)
    # Every step comes after what it reads: from the last one back, what follows a step is known before it.
    for name, step in reversed(graph.steps.items()):
        whole = seconds.get(name, 0.0) + after[name]
        for before in {*map(owner, inputs_of(graph, step)), *step.rows, *step.after} & after.keys():
            after[before] = max(after[before], whole)
    return after


def earlier_seconds(store: JobStore, run: StoredRun) -> dict[str, float]:
    """How long each step took in the last run of the same workflow that succeeded, its longest partition counting."""
    earlier = store.runs(1, status="succeeded", workflow=run.workflow)
    if not earlier or sum(store.counts(earlier[0].id).values()) > READ:
        return {}
    keys = [job.result_key for job in store.jobs(earlier[0].id) if job.result_key]
    seconds: dict[str, float] = {}
    for body in store.results(keys).values():
        for name, stats in decode_result(body).stats.items():
            seconds[name] = max(seconds.get(name, 0.0), stats.seconds)
    return seconds
