"""`sage deploy`: keep a workflow under a name, with its schedules."""

from __future__ import annotations

from pathlib import Path

import click

from sage_core.cli.app import App, pass_app
from sage_core.cli.output import json_option, print_json


@click.command()
@click.argument("workflow")
@click.option("--name", metavar="NAME", default="", help="Deploy under this name; default: the workflow's own.")
@click.option("--queue", metavar="QUEUE", default="default", show_default=True, help="Where its runs wait for workers.")
@click.option("--param", "-p", "params", multiple=True, metavar="NAME=VALUE", help="Keep a parameter; repeatable.")
@click.option("--profile", metavar="NAME", help="Apply [profile.NAME] of the workflow.")
@click.option("--remove", is_flag=True, help="Forget the deployment; WORKFLOW may be its name. Its runs stay.")
@json_option
@pass_app
def deploy(
    app: App,
    workflow: str,
    name: str,
    queue: str,
    params: tuple[str, ...],
    profile: str | None,
    remove: bool,
    as_json: bool,
) -> None:
    """Keep WORKFLOW in the job store, with its schedules.

    It is started by name, with `sage invoke`, and by its schedules. What is kept is the workflow as it is now: edit
    the file, and nothing changes until it is deployed again. Each [[triggers.cron]] becomes a schedule; one that is
    paused stays paused.

    \b
    Examples:
      sage deploy workflow.toml
      sage deploy workflow.toml --name nightly --queue batch --param docs=~/notes
      sage deploy nightly --remove
    """
    from sage_core.cli.parameters import parse  # noqa: PLC0415 - `--help` needs none of it
    from sage_core.kernel.runtime import deployments, launch  # noqa: PLC0415 - see above
    from sage_core.kernel.runtime.inspect import iso  # noqa: PLC0415 - see above

    path = Path(workflow)
    if remove:
        project = launch.find_project(path.parent if path.is_file() else Path.cwd())
        name = name or (launch.load(path, app.host, project).name if path.is_file() else workflow)
        deployments.remove(name, project)
        print_json({"name": name, "removed": True}) if as_json else click.echo(f"removed {name}")
        return
    project = launch.find_project(path.parent)
    graph = launch.load(path, app.host, project, profile=profile)
    done = deployments.deploy(graph, parse(params), host=app.host, project=project, name=name, queue=queue)
    schedules = [
        {"id": each.id, "paused": each.paused, "next_at": None if each.next_at is None else iso(each.next_at)}
        for each in done.schedules
    ]
    if as_json:
        fields = {"name": done.name, "workflow": done.workflow, "version": done.version, "queue": done.queue}
        print_json({**fields, "schedules": schedules, "dropped": done.dropped, "warnings": done.warnings})
        return
    click.echo(f"deployed {done.name}, version {done.version}, to queue {done.queue}")
    for each in schedules:
        click.echo(f"schedule {each['id']}: {'paused' if each['paused'] else each['next_at'] or 'never fires'}")
    if done.dropped:
        click.echo(f"removed {done.dropped} of its schedules, which the workflow does not have any more")
    for warning in (*graph.warnings, *done.warnings):
        click.echo(f"warning: {warning}", err=True)
    if schedules:
        click.echo(
            "note: `sage tick` or a running `sage worker` fires them; to have it called: sage schedules install",
            err=True,
        )
