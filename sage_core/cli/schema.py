"""`sage schema`: what an editor needs to complete and check workflow files."""

from __future__ import annotations

from pathlib import Path

import click

from sage_core.cli.app import App, pass_app
from sage_core.cli.output import encode_json
from sage_core.cli.workflow_schema import workflow_schema
from sage_core.common.errors import UsageError


@click.command()
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write it to this file.")
@pass_app
def schema(app: App, output: Path | None) -> None:
    """Print the JSON Schema of workflow files, for editors.

    \b
    Examples:
      sage schema --output .sage/workflow.schema.json
    """
    text = encode_json(workflow_schema(app.host))
    if output is None:
        click.echo(text)
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}", "name another file") from None
    click.echo(f"{output} is written; name it in the first line of a workflow: #:schema {output}", err=True)
