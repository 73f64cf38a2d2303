"""One run as `sage runs show` prints it: what it came to by step, and what its jobs did over time."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import click
import msgspec

from sage_core.cli.outcome import say_skipped
from sage_core.cli.output import print_table
from sage_core.cli.timeline import History, Line, draw, job_lines, stage_lines
from sage_core.common.paths import Paths
from sage_core.common.records import RowFailure
from sage_core.kernel.runtime.inspect import inspect_run
from sage_core.kernel.runtime.prepared import decode_prepared
from sage_core.kernel.runtime.report import Partitions
from sage_core.platform.records import ENDED
from sage_core.platform.store import JobStore

#: Columns of a timeline that is piped.
PIPED = 100


class ShownRun:
    """Reads a run, and prints what was read last.

    Args:
        by_job: draw a line per job instead of one per stage.
        as_json: the figures are for programs, so that what is going on has no end yet.
    """

    def __init__(self, run_id: str, paths: Paths, *, by_job: bool, as_json: bool, watch: bool) -> None:
        self._run_id = run_id
        self._paths = paths
        self._by_job = by_job
        # Time passes in a picture that is drawn in place; a line in a pipe or a document tells of changes alone.
        self._moves = not as_json and (sys.stdout.isatty() or not watch)
        self._lines: list[Line] = []
        self._now = 0

    def read(self, store: JobStore) -> dict[str, Any]:
        """The document that ``--json`` prints."""
        run = store.run(self._run_id)
        prepared = decode_prepared(run.plan)
        stages = {name: ", ".join(stage.steps) for name, stage in prepared.stages.items()}
        history = History(
            created_at=run.created_at,
            jobs=store.jobs(run.id),
            attempts=store.attempts(run.id),
            edges=store.edges(run.id),
        )
        self._lines = (job_lines if self._by_job else stage_lines)(history, stages)
        found = msgspec.structs.asdict(inspect_run(store, run, self._paths))
        found["timeline"] = [_figures(line, self._by_job) for line in self._lines]
        if self._moves and run.status not in ENDED:
            found["at"] = self._now = store.now() - run.created_at
        return found

    def say(self, found: dict[str, Any]) -> None:
        """Print a document for people."""
        run_id, status, session = found["run_id"], found["status"], found["session"]
        jobs = ", ".join(f"{count} {state}" for state, count in found["jobs"].items())
        click.echo(f"run       {run_id}")
        click.echo(f"workflow  {found['workflow']}")
        click.echo(f"status    {status}")
        click.echo(f"started   {found['created_at']}" + (f", session {session}" if session > 1 else ""))
        click.echo(f"jobs      {jobs or 'none'}")
        click.echo()
        print_table(
            ["step", "rows in", "rows out", "absent", "failed", "seconds", "partitions"],
            [
                (name, s.rows_in, s.rows_out, s.absent, s.failed, f"{s.seconds:.3f}", _partitions(s.partitions))
                for name, s in found["steps"].items()
            ],
        )
        picture = draw(self._lines, width=_width(), now=self._now)
        if picture:
            click.echo("\n".join(["", *picture]))
        say_skipped(found["failures"], f"sage runs show {run_id} --errors", err=False)
        if found["error"]:
            click.echo(f"\nerror: {found['error']}")
        if status in ("failed", "cancelled"):
            click.echo(f"\nto continue: sage runs resume {run_id}")

    def say_errors(self, found: dict[str, Any]) -> None:
        """Print what failed for people: how many rows by step and kind, then every row; and the run's own error."""
        failures: tuple[RowFailure, ...] = found["failures"]
        counts = Counter((failure.step, failure.kind) for failure in failures)
        if counts:
            print_table(["step", "error", "rows"], [(*key, count) for key, count in counts.items()])
            click.echo()
            print_table(["step", "row", "error"], [(each.step, each.row, each.message) for each in failures])
        else:
            click.echo(f"No rows of run {found['run_id']} failed.")
        if found["error"]:
            click.echo(f"\nerror: {found['error']}")


def _width() -> int:
    if not sys.stdout.isatty():
        return PIPED
    from rich.console import Console  # noqa: PLC0415 - rich is imported only to draw

    return Console().width


def _figures(line: Line, with_spans: bool) -> dict[str, object]:
    fields = msgspec.structs.asdict(line)
    return {name: value for name, value in fields.items() if name != "spans" or with_spans}


def _partitions(parts: Partitions) -> str:
    """``16: 14 reused, 2 run``, with what is left where something is."""
    left = parts.total - parts.reused - parts.run
    counts = {"reused": parts.reused, "run": parts.run, "left": left}
    return f"{parts.total}: {', '.join(f'{n} {what}' for what, n in counts.items() if n)}" if parts.total else "0"
