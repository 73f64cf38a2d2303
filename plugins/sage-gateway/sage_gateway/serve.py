"""`sage serve`: the gateway, the control plane behind it, and the engine host of this machine, in one process."""

from __future__ import annotations

from pathlib import Path

import click

from sage_gateway.command_line import CommandLine


@click.command()
@click.option("--host", "address", default="", metavar="ADDRESS", help="Address to listen on; 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65_535), metavar="N", help="Port to listen on; 8700. 0 is any free one.")
@click.option(
    "--config",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The sage.toml to read; the nearest one at or above the current folder.",
)
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write what the control plane is told, and when: sizes and times, never a text.",
)
@click.pass_obj
def serve(app: CommandLine, address: str, port: int | None, file: Path | None, record: Path | None) -> None:
    """Serve the models of sage.toml as one OpenAI-compatible endpoint, and to the runs of this machine.

    Without keys (see `sage keys`) it listens on loopback only and accepts any key. SIGHUP reads sage.toml again. Ctrl-C
    or SIGTERM takes no more requests and gives those that run [gateway] grace to end; a second one ends them at once.

    \b
    Examples:
      sage serve
      sage serve --port 9000 --config deploy/sage.toml
      sage serve --record traffic.jsonl
    """
    import os  # noqa: PLC0415 - `--help` needs none of it

    from sage_core.serving import log_to_stderr  # noqa: PLC0415 - see above
    from sage_gateway.process import run  # noqa: PLC0415 - see above

    if file is not None:
        # The workers of deployed workflows, and SIGHUP, must find the same file.
        os.environ["SAGE_CONFIG"] = str(file.absolute())
    log_to_stderr()
    run(app.host, app.config, app.paths, address=address, port=port, record=record, say=click.echo)
