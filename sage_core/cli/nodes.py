"""`sage nodes`: the machines of the cluster, what they have and what of it is in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sage_core.cli.output import json_option, print_table
from sage_core.cli.stored import project_here
from sage_core.cli.watch import look, watch_option

if TYPE_CHECKING:
    from sage_core.platform.store import JobStore

#: Milliseconds by which a node's clock may be off before it is worth a word.
CLOCK_MS = 1_000


@click.command()
@watch_option
@json_option
def nodes(as_json: bool, watch: bool) -> None:
    """List the nodes of the cluster, and what of them is in use: machines on which `sage worker` runs, or ran.

    A node is live, stopped (its supervisor said goodbye) or silent (no heartbeat for [cluster] silence seconds). Used
    is what running jobs and loaded models reserve; jobs without needs reserve nothing.

    \b
    Examples:
      sage nodes
      sage nodes --json
      sage nodes --watch
    """
    project = project_here()
    silence_ms = int(1000 * project.config.cluster.silence)

    def read(store: JobStore) -> list[dict[str, Any]]:
        return describe_nodes(store, silence_ms=silence_ms)

    look(project, read, _say, as_json=as_json, watch=watch)


def describe_nodes(store: JobStore, *, silence_ms: int) -> list[dict[str, Any]]:
    """Every node that was ever announced, by name, with what is used of it now."""
    import msgspec  # noqa: PLC0415 - `--help` needs none of it

    from sage_core.common.records import Node  # noqa: PLC0415 - see above
    from sage_core.kernel.runtime.inspect import iso  # noqa: PLC0415 - see above
    from sage_core.kernel.scheduler.ledger import with_jobs  # noqa: PLC0415 - see above

    now, running = store.now(), store.nodes_running()
    workers = [worker for worker in store.live_workers() if worker.kind == "worker"]
    found = []
    for row in store.nodes():
        silent = row.heartbeat_at < now - silence_ms
        state = "stopped" if row.stopped_at is not None else "silent" if silent else "live"
        jobs = running.get(row.name, {})
        node = with_jobs(msgspec.json.decode(row.body, type=Node), jobs)
        found.append(
            {
                "name": row.name,
                "state": state,
                "since": iso(row.stopped_at or (row.heartbeat_at if silent else row.started_at)),
                "host": row.host,
                **{f"used_{what}": getattr(node, f"used_{what}") for what in ("cpu", "memory", "gpu")},
                **{what: getattr(node, what) for what in ("cpu", "memory", "gpu", "gpu_memory", "labels", "models")},
                "jobs": sum(jobs.values()),
                "workers": sum(worker.node == row.name for worker in workers),
                "clock_ms": row.clock_ms,
            }
        )
    return found


def _say(found: list[dict[str, Any]]) -> None:
    if not found:
        click.echo("No node was ever announced.\n  help: start one: sage worker", err=True)
        return
    print_table(
        ["node", "state", "since", "cpu", "memory", "gpu", "jobs", "workers", "labels", "models"],
        [
            (
                node["name"],
                node["state"],
                node["since"],
                f"{node['used_cpu']:g}/{node['cpu']:g}",
                f"{node['used_memory'] / 2**30:.1f}/{node['memory'] / 2**30:.1f} GiB",
                f"{node['used_gpu']}/{node['gpu']}",
                node["jobs"],
                node["workers"],
                " ".join(node["labels"]),
                " ".join(node["models"]),
            )
            for node in found
        ],
    )
    for node in found:
        if node["state"] == "live" and abs(node["clock_ms"]) > CLOCK_MS:
            way = "ahead of" if node["clock_ms"] > 0 else "behind"
            click.echo(
                f"warning: the clock of {node['name']} is {abs(node['clock_ms']) / 1000:.0f} s {way} the database's."
                " Jobs and schedules go by the database's clock alone; the times in that machine's logs are off.",
                err=True,
            )
