"""`sage worker`: serves queues on this machine until told to leave, or until nothing is left to do."""

from __future__ import annotations

from pathlib import Path

import click

from sage_core.cli.app import App, pass_app
from sage_core.cli.output import json_option, print_json
from sage_core.common.errors import BadValue

#: Exit status after a second signal, or when a queue was given up.
KILLED, GAVE_UP = 130, 1


class Duration(click.ParamType[float]):
    """A number with a unit, in seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it; click shows what is wrong with it."""
        from sage_core.kernel.dataflow.units import seconds  # noqa: PLC0415 - `--help` needs none of it

        if isinstance(value, float):
            return value
        try:
            return seconds(value)
        except BadValue as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.option("--queue", "queues", multiple=True, metavar="NAME", help="Queue to serve; may be repeated.")
@click.option("--until-idle", type=Duration(), metavar="TIME", help="Leave after so long without anything to do.")
@click.option("--max-jobs", type=click.IntRange(1), metavar="N", help="Leave after N jobs.")
@click.option("--node", default="", metavar="NAME", help="Name of this machine in the cluster.")
@click.option("--grace", type=Duration(), default=5.0, metavar="TIME", help="What workers have to leave in; 5s.")
@click.option("--as", "identity", default="", hidden=True)
@json_option
@pass_app
def worker(
    app: App,
    queues: tuple[str, ...],
    until_idle: float | None,
    max_jobs: int | None,
    node: str,
    grace: float,
    identity: str,
    as_json: bool,
) -> None:
    """Serve queues on this machine: start workers as they are needed, and finish the runs they work on.

    Without --queue these are the queues of sage.toml, or the one named default. [queues.NAME] says how many processes
    a queue gets: min, max, buffer, idle. What workers print is in logs/workers.log of the project.

    The first SIGTERM or Ctrl-C lets workers give their jobs back, within --grace; the second kills them. Either way
    the jobs are claimable again, and their attempts do not count.

    \b
    Exit codes:
      0    nothing left to do, as many jobs as asked for, or told to leave
      1    a queue was given up, because its workers die without running a job; or, with --until-idle, the job store has
           been away for that long, and for two leases
      2    the command line is wrong, or the node's name or a queue is served by another process
      130  told twice to leave

    \b
    Examples:
      sage worker
      sage worker --queue default --queue nightly --node gpu-1
      sage worker --until-idle 60s --json
      sage worker --until-idle 5m --max-jobs 1000
    """
    import msgspec  # noqa: PLC0415 - `--help` needs none of it

    from sage_core.common.telemetry import log_to_stderr  # noqa: PLC0415 - see above
    from sage_core.kernel.runtime.launch import find_project  # noqa: PLC0415 - see above
    from sage_core.kernel.runtime.supervisor import Supervisor  # noqa: PLC0415 - see above
    from sage_core.kernel.scheduler.node import this_node  # noqa: PLC0415 - see above

    log_to_stderr()
    project = find_project(Path.cwd())
    here = this_node(project.config)
    supervisor = Supervisor(
        project,
        app.host,
        msgspec.structs.replace(here, name=node or here.name),
        list(dict.fromkeys(queues)) or sorted(project.config.queues) or ["default"],
        until_idle=until_idle,
        max_jobs=max_jobs,
        grace=grace,
        id=identity,
    )
    farewell = supervisor.run()
    if as_json:
        print_json(farewell)
    else:
        for name, queue in farewell.queues.items():
            click.echo(f"queue {name}: {queue.started} workers started, {queue.died} died")
        click.echo(f"node {farewell.node}: {_REASONS[farewell.reason]}")
    for name, queue in farewell.queues.items():
        if queue.error:
            click.echo(f"Error: queue {name!r} was given up: {queue.error}", err=True)
    if farewell.error:
        click.echo(f"Error: {farewell.error}", err=True)
    if supervisor.hurried:
        raise click.exceptions.Exit(KILLED)
    if farewell.error or any(queue.error for queue in farewell.queues.values()):
        raise click.exceptions.Exit(GAVE_UP)


_REASONS = {
    "idle": "left, because there was nothing to do",
    "max_jobs": "left after the jobs it was asked for",
    "stopped": "left, because it was told to",
    "gave_up": "left, because its workers die",
    "away": "left, because the job store stays away",
}
