"""`sage replay`: decide again what `sage serve --record` wrote down, and hold it against the decision log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sage_core.cli.app import App, pass_app
from sage_core.cli.output import json_option, print_json
from sage_core.common.errors import UsageError

if TYPE_CHECKING:
    from sage_core.kernel.control_plane.recording import Comparison, Difference


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--decisions",
    "logs",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="LOG",
    help="A decision log to compare with; repeatable, older ones first. Default: this project's, with the rotated one.",
)
@json_option
@pass_app
def replay(app: App, file: Path, logs: tuple[Path, ...], as_json: bool) -> None:
    """Decide again, with a fresh control plane, all of the recording FILE, and compare with the decision log.

    The exit code is 1 when one decision differs or is not in the log: then a policy or a selector read a clock, drew
    random numbers of its own, or followed the order of a set; or this is not the code, or the log, of the recording.
    The first difference is shown, in the order of time. The replay goes on behind it as long as the recorded inputs
    can be applied, and says where it ended: what answers a decision that was not made again tells nothing.

    \b
    Examples:
      sage serve --record traffic.jsonl
      sage replay traffic.jsonl
      sage replay traffic.jsonl --decisions a/decisions.jsonl --decisions b/decisions.jsonl --json
    """
    from sage_core import __version__  # noqa: PLC0415 - `--help` needs none of it
    from sage_core.kernel.control_plane.decisions import log_files  # noqa: PLC0415 - see above
    from sage_core.kernel.control_plane.inline import build_manager  # noqa: PLC0415 - see above
    from sage_core.kernel.control_plane.recording import Recording, compare  # noqa: PLC0415 - see above

    if not file.is_file():
        raise UsageError(f"there is no recording {file}", "`sage serve --record FILE` writes one")
    there = list(logs) or log_files(app.paths.logs)
    absent = [path for path in there if not path.is_file()]
    if absent or not there:
        missing = absent[0] if absent else app.paths.logs / "decisions.jsonl"
        raise UsageError(f"there is no decision log {missing}", "name the server's own with --decisions LOG")
    with Recording(file) as recording:
        if recording.header.sage != __version__:
            click.echo(f"recorded by SAGE {recording.header.sage}, replayed by {__version__}", err=True)
        found = compare(recording, build_manager(app.host, recording.header.config()), there)
    if as_json:
        print_json({"same": found.same, **_plain(found)})
    else:
        _say(found)
    if not found.same:
        raise click.exceptions.Exit(1)


def _say(found: Comparison) -> None:
    click.echo(f"{found.instants} instants, {found.requests} requests: {found.compared} decisions compared")
    if found.unfinished:
        click.echo(f"{found.unfinished} requests had not ended where the recording ends")
    if found.difference is not None:
        different = found.compared - found.equal
        click.echo(f"{different} differ, {found.missing} are not in the log; the first:")
        click.echo(_told(found.difference))
    elif not found.stopped:
        click.echo("all equal" if found.compared else "nothing to compare: no recorded request is in the log")
    if found.stopped:
        click.echo(f"the replay ended where the recorded inputs answer other decisions: {found.stopped}")


def _told(first: Difference) -> str:
    where = f"  request {first.request}, line {first.line + 1} of its record"
    if first.field:
        return f"{where}: {first.field}\n    log      {_short(first.logged)}\n    replayed {_short(first.replayed)}"
    one = (
        "is in the log, and was not decided again" if first.replayed is None else "was decided again, and is in no log"
    )
    return f"{where}: {one}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}…"


def _plain(found: Comparison) -> dict[str, Any]:
    import msgspec  # noqa: PLC0415 - see above

    plain: dict[str, Any] = msgspec.to_builtins(found)
    return plain
