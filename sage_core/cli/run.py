"""`sage run`: run a workflow and print what it came to."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sage_core.cli.app import App, pass_app
from sage_core.cli.output import json_option
from sage_core.common.errors import Interrupted, RunFailed

if TYPE_CHECKING:
    from sage_core.kernel.runtime.drive import Settings


@click.command()
@click.argument("workflow", type=click.Path(path_type=Path))
@click.option("--param", "-p", "params", multiple=True, metavar="NAME=VALUE", help="Set a parameter; repeatable.")
@click.option("--profile", metavar="NAME", help="Apply [profile.NAME] of the workflow.")
@click.option(
    "--workers", type=click.IntRange(1, 64), metavar="N", help="Use N worker processes, however small the run."
)
@click.option("--inline", is_flag=True, help="Run everything in this process.")
@json_option
@pass_app
def run(
    app: App,
    workflow: Path,
    params: tuple[str, ...],
    profile: str | None,
    workers: int | None,
    inline: bool,
    as_json: bool,
) -> None:
    """Run WORKFLOW and print its outputs.

    A small run stays in this process; one with work to build starts worker processes, which are gone afterwards.
    What was computed before is reused; an interrupted run continues with: sage runs resume RUN.

    \b
    Examples:
      sage run examples/ask-docs/workflow.toml --param question="What is a fence?"
      sage run workflow.toml --param docs=~/notes --json
      sage run workflow.toml --workers 4 --profile prod
    """
    from sage_core.cli.outcome import finish  # noqa: PLC0415 - `sage run --help` needs none of it
    from sage_core.cli.parameters import parse  # noqa: PLC0415 - see above
    from sage_core.cli.screen import Screen  # noqa: PLC0415 - see above
    from sage_core.kernel.runtime import launch  # noqa: PLC0415 - see above

    settings = settings_of(workers, inline)
    given = parse(params)
    project = launch.find_project(workflow.parent)
    graph = launch.load(workflow, app.host, project, profile=profile)
    run_id = launch.new_run_id()
    prepared = launch.bind(graph, given, app.host, project, run_id=run_id)
    try:
        with Screen(graph.name, as_json=as_json, warnings=graph.warnings) as screen:
            report = launch.run(
                graph,
                prepared,
                run_id,
                host=app.host,
                project=project,
                settings=settings,
                watch=screen.watch,
                workflow=workflow,
                profile=profile,
            )
        finish(report, as_json=as_json, seconds=screen.seconds)
    except (Interrupted, RunFailed, click.exceptions.Exit):
        # Each of them says how to resume the run, and that looks for it in the project of the current folder.
        if launch.find_project(Path.cwd()).url != project.url:
            folder = shlex.quote(str(workflow.parent))
            click.echo(f"note: run {run_id} is kept with its workflow; to resume it, first: cd {folder}", err=True)
        raise


def settings_of(workers: int | None, inline: bool) -> Settings:
    """What ``--workers`` and ``--inline`` mean together."""
    from sage_core.kernel.runtime.drive import Settings  # noqa: PLC0415 - `--help` needs none of it

    if inline and workers is not None:
        raise click.UsageError("--inline and --workers exclude each other")
    return Settings(workers=0 if inline else workers)
