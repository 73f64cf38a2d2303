"""`sage queues`: what waits in which queue, and the switch of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sage_core.cli.group import Group
from sage_core.cli.output import json_option, print_json, print_table
from sage_core.cli.stored import has_store, place_of, project_here
from sage_core.cli.watch import present, watch_option
from sage_core.common.errors import UsageError, suggest

if TYPE_CHECKING:
    from sage_core.platform.store import JobStore

#: Jobs by where they stand, as the view `sage_queue_depth` counts them.
COUNTS = ("ready", "delayed", "held", "running", "blocked")


@click.group(cls=Group)
def queues() -> None:
    """List, pause and resume queues.

    Workers serve queues by name (sage worker --queue NAME); a run that `sage run` drives has a private queue.

    \b
    Examples:
      sage queues list
      sage queues pause nightly
      sage queues resume nightly
    """


@queues.command("list")
@click.option("--all", "every", is_flag=True, help="Also the private queues of driven runs.")
@watch_option
@json_option
def list_queues(every: bool, watch: bool, as_json: bool) -> None:
    """List queues that hold unfinished jobs or were ever paused.

    Ready jobs could be claimed now, delayed ones are due later, held ones wait because their queue is paused, and
    blocked ones wait for other jobs.

    \b
    Examples:
      sage queues list
      sage queues list --all --watch
      sage queues list --json
    """
    from sage_core.kernel.runtime.inspect import iso  # noqa: PLC0415 - `--help` needs none of it
    from sage_core.kernel.runtime.submit import PRIVATE  # noqa: PLC0415 - see above

    project = project_here()

    def read(store: JobStore) -> list[dict[str, Any]]:
        now, found = store.now(), []
        for queue in store.queues():
            if every or not queue.name.startswith(PRIVATE):
                row = {name: getattr(queue, name) for name in ("name", "paused", *COUNTS)}
                oldest = queue.oldest_run_at
                # A document says when, and so changes only with the queue; a table says for how long.
                row["oldest_at"] = None if oldest is None else iso(oldest)
                if not as_json:
                    row["oldest"] = "" if oldest is None else f"{max(0, now - oldest) / 1000:.0f} s"
                found.append(row)
        return found

    def say(rows: list[dict[str, Any]]) -> None:
        if not rows:
            click.echo(f"No queues in {place_of(project)}\n  help: sage invoke queues a run", err=True)
            return
        print_table(
            ["queue", *COUNTS, "oldest", ""],
            [
                (
                    *(row[name] for name in ("name", *COUNTS, "oldest")),
                    "paused" if row["paused"] else "",
                )
                for row in rows
            ],
        )

    if has_store(project) or watch:
        with project.open_store() as store:
            present(store, read, say, as_json=as_json, watch=watch)
    else:
        print_json([]) if as_json else say([])


@queues.command("pause")
@click.argument("name")
@json_option
def pause(name: str, as_json: bool) -> None:
    """Stop claiming from a queue; jobs that run are left to finish.

    \b
    Examples:
      sage queues pause nightly
    """
    with project_here(f"queue is named {name!r}").open_store() as store, store.transaction() as tx:
        tx.switch_queue(name, paused=True)
    _say(name, True, as_json)


@queues.command("resume")
@click.argument("name")
@json_option
def resume(name: str, as_json: bool) -> None:
    """Let a queue go on, and start workers for it where jobs are due and none serves it.

    \b
    Examples:
      sage queues resume nightly
    """
    from sage_core.kernel.runtime.autoscale import wake  # noqa: PLC0415 - `--help` needs none of it

    project = project_here(f"queue {name!r} is paused")
    with project.open_store() as store:
        paused = [queue.name for queue in store.queues() if queue.paused]
        if name not in paused:
            known = f"paused: {', '.join(paused)}" if paused else "no queue is paused"
            raise UsageError(f"Queue {name!r} is not paused.{suggest(name, paused)}", f"{known}; see: sage queues list")
        with store.transaction() as tx:
            tx.switch_queue(name, paused=False)
    wake(project)
    _say(name, False, as_json)


def _say(name: str, paused: bool, as_json: bool) -> None:
    if as_json:
        print_json({"queue": name, "paused": paused})
    else:
        click.echo(f"queue {name}: {'paused' if paused else 'goes on'}")
