"""`sage tick`: fire what is due, tidy up, start workers where jobs wait, and leave."""

from __future__ import annotations

from pathlib import Path

import click

from sage_core.cli.app import App, pass_app
from sage_core.cli.output import json_option, print_json


@click.command()
@click.option("--no-spawn", is_flag=True, help="Start no workers.")
@json_option
@pass_app
def tick(app: App, no_spawn: bool, as_json: bool) -> None:
    """Fire what is due, start workers where jobs wait, and leave.

    It also frees the jobs of dead workers, and removes what [retention] of sage.toml does not keep. This is what keeps
    a project going while none of its processes runs: a systemd timer, crontab line or pod calls it, see `sage schedules
    install`. Any number of ticks may run at once; each fire time starts one run. It works on the project of the current
    folder. Exit code 1: a schedule could not be fired.

    \b
    Examples:
      sage tick
      sage tick --no-spawn --json
    """
    from msgspec.structs import asdict  # noqa: PLC0415 - `--help` needs none of it

    from sage_core.kernel.runtime import launch  # noqa: PLC0415 - see above
    from sage_core.kernel.runtime.autoscale import wake  # noqa: PLC0415 - see above
    from sage_core.kernel.runtime.finish import announce_left  # noqa: PLC0415 - see above
    from sage_core.kernel.runtime.inspect import iso  # noqa: PLC0415 - see above
    from sage_core.kernel.runtime.retention import prune  # noqa: PLC0415 - see above
    from sage_core.kernel.runtime.schedules import fire_due, next_due_ms  # noqa: PLC0415 - see above
    from sage_core.platform.shared import artifacts_of  # noqa: PLC0415 - see above

    project = launch.find_project(Path.cwd())
    with project.open_store() as store:
        fired = fire_due(project, app.host, store=store)
        announce_left(store, app.host)
        expired = store.expire()
        store.bury_dead_workers()
        started = [] if no_spawn else wake(project)
        gone = prune(store, artifacts_of(project.paths.artifacts, store), project.config.retention)
        next_due = next_due_ms(store)
    pruned = {name: count for name, count in asdict(gone).items() if count}
    if as_json:
        rows = [
            {
                "schedule": each.schedule,
                "fire_at": iso(each.fire_at),
                "outcome": each.outcome,
                "run_id": each.run_id,
                "error": each.error,
            }
            for each in fired
        ]
        print_json({"fired": rows, "expired": expired, "started": started, "pruned": pruned, "next_due_ms": next_due})
    else:
        for each in fired:
            click.echo(
                f"{each.schedule} {iso(each.fire_at)}: {each.outcome}{f', run {each.run_id}' if each.run_id else ''}"
            )
        if pruned:
            click.echo(f"removed {', '.join(f'{count} {name}' for name, count in pruned.items())}")
        for queue in started:
            click.echo(f"started workers for queue {queue}")
    for each in fired:
        if each.error:
            click.echo(f"Error: schedule {each.schedule}: {each.error}", err=True)
    if any(each.error for each in fired):
        raise click.exceptions.Exit(1)
