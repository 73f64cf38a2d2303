"""`sage graph`: draw a workflow."""

from __future__ import annotations

from pathlib import Path

import click

from sage_core.cli.app import App, pass_app
from sage_core.cli.output import json_option


@click.command()
@click.argument("workflow", type=click.Path(path_type=Path))
@click.option("--profile", metavar="NAME", help="Apply [profile.NAME] of the workflow.")
@click.option("--format", "form", type=click.Choice(["text", "mermaid", "dot"]), default="text", show_default=True)
@json_option
@pass_app
def graph(app: App, workflow: Path, profile: str | None, form: str, as_json: bool) -> None:
    """Draw the steps of WORKFLOW by grain, and what flows between them.

    \b
    Examples:
      sage graph workflow.toml
      sage graph workflow.toml --format mermaid > workflow.mmd
      sage graph workflow.toml --json
    """
    from sage_core.cli import draw  # noqa: PLC0415 - `--help` needs none of it
    from sage_core.common.config import load_config  # noqa: PLC0415 - see above
    from sage_core.kernel.dataflow.check import load  # noqa: PLC0415 - see above
    from sage_core.kernel.dataflow.graph import encode  # noqa: PLC0415 - see above

    checked = load(workflow, app.host, profile=profile, known_models=load_config(workflow.parent).models)
    if as_json:
        click.echo(encode(checked).decode())
        return
    forms = {"text": draw.text, "mermaid": draw.mermaid, "dot": draw.dot}
    click.echo(forms[form](checked).rstrip())
