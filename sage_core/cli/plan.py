"""`sage plan`: what a run would reuse and what it would do."""

from __future__ import annotations

from pathlib import Path

import click

from sage_core.cli.app import App, pass_app
from sage_core.cli.output import json_option, print_json, print_table


@click.command()
@click.argument("workflow", type=click.Path(path_type=Path))
@click.option("--param", "-p", "params", multiple=True, metavar="NAME=VALUE", help="Set a parameter; repeatable.")
@click.option("--profile", metavar="NAME", help="Apply [profile.NAME] of the workflow.")
@click.option("--probe/--no-probe", default=True, show_default=True, help="Run the sources, which only read.")
@json_option
@pass_app
def plan(app: App, workflow: Path, params: tuple[str, ...], profile: str | None, probe: bool, as_json: bool) -> None:
    """Show, step by step, what a run of WORKFLOW would reuse and what it would do; writes no run.

    reuse: an earlier result fits; run: none does; always: the step reads the world; deferred: known later.

    \b
    Examples:
      sage plan workflow.toml --param question="What is a fence?"
      sage plan workflow.toml --no-probe --json
    """
    from sage_core.cli.parameters import parse  # noqa: PLC0415 - `--help` needs none of it
    from sage_core.kernel.runtime import launch  # noqa: PLC0415 - see above

    project = launch.find_project(workflow.parent)
    graph = launch.load(workflow, app.host, project, profile=profile)
    run_id = launch.new_run_id()
    prepared = launch.bind(graph, parse(params), app.host, project, run_id=run_id)
    found = launch.plan(graph, prepared, run_id, host=app.host, project=project, probe=probe)
    if as_json:
        print_json({"workflow": graph.name, "steps": found})
        return
    rows = [
        (name, graph.steps[name].use, step.verb, f"{step.reused}/{step.jobs}", step.rows or "", step.reason)
        for name, step in found.items()
    ]
    print_table(["step", "operator", "plan", "reused", "rows to do", "why"], rows)
