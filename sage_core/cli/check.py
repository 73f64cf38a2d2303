"""`sage check`: every error of a workflow file, without running it."""

from __future__ import annotations

from pathlib import Path

import click

from sage_core.cli.app import App, pass_app
from sage_core.cli.output import json_option, print_json


@click.command()
@click.argument("workflow", type=click.Path(path_type=Path))
@click.option("--profile", metavar="NAME", help="Apply [profile.NAME] of the workflow.")
@json_option
@pass_app
def check(app: App, workflow: Path, profile: str | None, as_json: bool) -> None:
    """Report every error of WORKFLOW as ``file:line:column: message``; needs no parameter values.

    Exit code 0 when it is valid, 2 when it is not.

    \b
    Examples:
      sage check examples/ask-docs/workflow.toml
      sage check workflow.toml --json
    """
    from sage_core.common.config import load_config  # noqa: PLC0415 - `--help` needs none of it
    from sage_core.common.errors import InvalidWorkflow  # noqa: PLC0415 - see above
    from sage_core.kernel.dataflow.check import load  # noqa: PLC0415 - see above

    config = load_config(workflow.parent)
    try:
        graph = load(workflow, app.host, profile=profile, known_models=config.models)
    except InvalidWorkflow as error:
        if not as_json:
            raise
        print_json({"valid": False, "diagnostics": error.diagnostics})
        raise click.exceptions.Exit(error.exit_code) from None
    if as_json:
        print_json({"valid": True, "diagnostics": [], "warnings": graph.warnings, "steps": list(graph.steps)})
        return
    for warning in graph.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{workflow}: valid, {len(graph.steps)} steps")
