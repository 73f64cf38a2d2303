"""Queued runs for tests of who runs them, and workers of a queue in this process."""

from __future__ import annotations

from typing import Any

from sage_core.kernel.runtime import launch, worker
from sage_core.kernel.runtime.submit import Order
from sage_core.platform.processes import this_process
from sage_core.platform.store import JobStore
from sage_core.testing.flows import Flows


def numbers(use: str = "d.plain", *, n: int = 4, partition: int = 2, **options: Any) -> dict[str, Any]:
    """A workflow that opens `n` rows and does something to each partition of them."""
    return {
        "name": "queued",
        "steps": {
            "numbers": {"use": "d.numbers", "with": {"n": n}},
            "act": {"use": use, "in": {"text": "numbers.text"}, "with": options, "partition": partition},
        },
        "outputs": {"all": "act"},
    }


def enqueue(flows: Flows, workflow: dict[str, Any], order: Order | None = None) -> str:
    """Queue a run, as `sage invoke` does."""
    run_id = launch.new_run_id()
    graph = flows.graph(workflow)
    prepared = launch.bind(graph, {}, flows.host, flows.project, run_id=run_id)
    return launch.enqueue(graph, prepared, run_id, host=flows.host, project=flows.project, order=order or Order())


def worker_of(flows: Flows, store: JobStore, *duty: str, parent: int, id: str = "w1") -> worker.Worker:
    """A worker in this process, told what a child is told."""
    project = flows.project
    options = worker.parse(
        [
            *(f"--project={project.paths.project}", f"--data={project.paths.data}"),
            *(f"--runtime={project.paths.runtime}", f"--store={project.url}", f"--folder={flows.home}"),
            *(f"--id={id}", f"--parent={parent}"),
            *(f"--plugin={name}={module}" for name, module in flows.host.modules().items()),
            *duty,
        ]
    )
    me = this_process("worker")
    store.register_worker(type(me)(**{**{f: getattr(me, f) for f in me.__struct_fields__}, "id": id}))
    return worker.Worker(store, worker.Options(options), project.config)
