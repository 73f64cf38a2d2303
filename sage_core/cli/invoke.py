"""`sage invoke`: queue a run of a deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sage_core.cli.app import App, pass_app
from sage_core.cli.output import json_option, print_json
from sage_core.cli.stored import project_here
from sage_core.cli.worker import Duration

if TYPE_CHECKING:
    from sage_core.kernel.runtime.launch import Project
    from sage_core.platform.records import OnConflict


@click.command()
@click.argument("name")
@click.option("--param", "-p", "params", multiple=True, metavar="NAME=VALUE", help="Set a parameter; repeatable.")
@click.option("--wait", is_flag=True, help="Wait for the run and print what `sage run` prints.")
@click.option("--queue", metavar="QUEUE", default="", help="Another queue than the deployment's.")
@click.option(
    "--priority",
    type=click.IntRange(-(2**31), 2**31 - 1),
    default=0,
    metavar="N",
    help="Larger goes first; default: 0.",
)
@click.option(
    "--delay", type=Duration(), default="0s", show_default=True, help="Wait this long before its jobs are due."
)
@click.option("--unique-key", metavar="KEY", help="At most one unfinished run has this key.")
@click.option("--idempotency-key", metavar="KEY", help="At most one run ever has this key.")
@click.option(
    "--on-conflict",
    type=click.Choice(["ignore", "replace", "error"]),
    default="error",
    show_default=True,
    help="Where a run has the key: keep that one, cancel it, or refuse.",
)
@click.option("--no-spawn", is_flag=True, help="Start no workers: those of the queue will find it.")
@json_option
@pass_app
def invoke(
    app: App,
    name: str,
    params: tuple[str, ...],
    wait: bool,
    queue: str,
    priority: int,
    delay: float,
    unique_key: str | None,
    idempotency_key: str | None,
    on_conflict: OnConflict,
    no_spawn: bool,
    as_json: bool,
) -> None:
    """Queue a run of the deployment NAME and print its id.

    Workers are started where none serve its queue.

    \b
    Examples:
      sage invoke ask-docs --param question="What is a fence?" --wait
      sage invoke nightly --delay 10m --priority -1
      sage invoke nightly --idempotency-key 2026-11-22 --on-conflict ignore
    """
    from sage_core.cli.parameters import parse  # noqa: PLC0415 - `--help` needs none of it
    from sage_core.kernel.runtime import deployments  # noqa: PLC0415 - see above
    from sage_core.kernel.runtime.autoscale import ensure_workers  # noqa: PLC0415 - see above
    from sage_core.kernel.runtime.submit import Order  # noqa: PLC0415 - see above

    project = project_here(f"deployment is named {name!r}")
    order = Order(
        queue=queue,
        priority=priority,
        delay_ms=round(delay * 1000),
        unique_key=unique_key,
        idempotency_key=idempotency_key,
        on_conflict=on_conflict,
    )
    run_id = deployments.invoke(name, parse(params), order, host=app.host, project=project)
    with project.open_store() as store:
        run = store.run(run_id)
    if not no_spawn and not delay:
        ensure_workers(project, run.queue)
    if wait:
        wait_for(run_id, run.workflow, project, as_json)
    elif as_json:
        print_json({"run_id": run_id, "deployment": name, "queue": run.queue, "status": run.status})
    else:
        click.echo(run_id)


def wait_for(run_id: str, workflow: str, project: Project, as_json: bool) -> None:
    """Wait for a queued run and print what `sage run` prints; Ctrl-C leaves it running."""
    from sage_core.cli.outcome import finish  # noqa: PLC0415 - only who waits needs it
    from sage_core.cli.screen import Screen  # noqa: PLC0415 - see above
    from sage_core.kernel.runtime.follow import follow  # noqa: PLC0415 - see above

    try:
        with Screen(workflow, as_json=as_json) as screen, project.open_store() as store:
            report = follow(store, run_id, paths=project.paths, watch=screen.watch)
    except KeyboardInterrupt:
        click.echo(f"note: run {run_id} goes on without you; to stop it: sage runs cancel {run_id}", err=True)
        raise
    finish(report, as_json=as_json, seconds=screen.seconds)
