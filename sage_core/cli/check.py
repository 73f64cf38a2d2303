"""`sage check`: every error of a workflow file, without running it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sage_core.cli.app import App, pass_app
from sage_core.cli.output import json_option, print_json

if TYPE_CHECKING:
    from sage_core.kernel.dataflow.graph import Graph


@click.command()
@click.argument("workflow", type=click.Path(path_type=Path))
@click.option("--profile", metavar="NAME", help="Apply [profile.NAME] of the workflow.")
@json_option
@pass_app
def check(app: App, workflow: Path, profile: str | None, as_json: bool) -> None:
    """Report every error of WORKFLOW as ``file:line:column: message``; needs no parameter values.

    Exit code 0 when it is valid, 2 when it is not. What no known node could run is a warning: the file may be meant
    for another cluster. `sage plan` and `sage run` refuse it.

    \b
    Examples:
      sage check examples/ask-docs/workflow.toml
      sage check workflow.toml --json
    """
    from sage_core.common.config import load_config  # noqa: PLC0415 - `--help` needs none of it
    from sage_core.common.errors import InvalidWorkflow  # noqa: PLC0415 - see above
    from sage_core.common.policies import ordering_named  # noqa: PLC0415 - see above
    from sage_core.kernel.dataflow.check import load  # noqa: PLC0415 - see above

    config = load_config(workflow.parent)
    try:
        graph = load(workflow, app.host, profile=profile, known_models=config.models)
    except InvalidWorkflow as error:
        if not as_json:
            raise
        print_json({"valid": False, "diagnostics": error.diagnostics})
        raise click.exceptions.Exit(error.exit_code) from None
    # No run of it could be queued under a policy that cannot rank jobs.
    ordering_named(config.scheduler.jobs, app.host.schedulers)
    warnings = [*graph.warnings, *_unmet(graph, workflow.parent)]
    if as_json:
        print_json({"valid": True, "diagnostics": [], "warnings": warnings, "steps": list(graph.steps)})
        return
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{workflow}: valid, {len(graph.steps)} steps")


def _unmet(graph: Graph, folder: Path) -> list[str]:
    if not any(step.needs for step in graph.steps.values()) and not any(m.needs for m in graph.models.values()):
        return []
    from sage_core.common.errors import StoreError  # noqa: PLC0415 - most workflows need nothing
    from sage_core.common.records import Node  # noqa: PLC0415 - see above
    from sage_core.kernel.runtime.demands import unmet  # noqa: PLC0415 - see above
    from sage_core.kernel.runtime.launch import find_project  # noqa: PLC0415 - see above
    from sage_core.kernel.scheduler.node import this_node  # noqa: PLC0415 - see above
    from sage_core.kernel.scheduler.placement import registered  # noqa: PLC0415 - see above

    project = find_project(folder)

    def nodes() -> list[Node]:
        if project.config.store.url or project.paths.database.exists():
            # A file is checked also where the database cannot be reached.
            with contextlib.suppress(StoreError), project.open_store() as store:
                return registered(store, project.config)
        return [this_node(project.config)]

    return unmet(graph, {name: step.options for name, step in graph.steps.items()}, graph.models, nodes)
