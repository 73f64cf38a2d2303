"""What a person sees of a run: a moving line while it runs, its outputs, and a table of its steps."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from sage_core.cli.output import encode_json, print_json, progress_allowed

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from sage_core.kernel.runtime.drive import Progress
    from sage_core.kernel.runtime.report import Report

#: Seconds a run may take before a progress bar is worth importing rich for.
PATIENCE = 0.5


class Screen:
    """Draws progress on stderr while a run is driven; silent when piped, in CI, and with ``--json``."""

    def __init__(self, workflow: str, run_id: str, *, as_json: bool, warnings: Sequence[str] = ()) -> None:
        self._workflow = workflow
        self._run_id = run_id
        self._moving = progress_allowed(as_json)
        self._started = time.monotonic()
        self._bar: Bar | None = None
        self._task: Any = None
        for warning in warnings:
            click.echo(f"warning: {warning}", err=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def watch(self, progress: Progress) -> None:
        """Show how far the run is."""
        if not self._moving or time.monotonic() - self._started < PATIENCE:
            return
        if self._bar is None:
            self._bar = _bar()
            self._bar.start()
            self._task = self._bar.add_task(f"{self._workflow} {self._run_id}", total=None)
        done = progress.counts.get("done", 0)
        total = sum(progress.counts.values())
        rate = progress.rows_done / progress.seconds if progress.seconds else 0.0
        self._bar.update(
            self._task,
            completed=progress.rows_done if progress.rows_known else done,
            total=progress.rows_known or total,
            status=f"{done}/{total} jobs, {rate:.1f} rows/s",
        )


def _bar() -> Bar:
    from rich.console import Console  # noqa: PLC0415 - 49 ms that only a long run on a terminal pays
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn  # noqa: PLC0415

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
    )


def finish(report: Report, *, as_json: bool) -> None:
    """Print a report and leave with the exit code it calls for."""
    if as_json:
        print_json(document(report))
    else:
        for warning in report.warnings:
            click.echo(f"warning: {warning}", err=True)
        _say_failures(report)
        _say_outputs(report.outputs, report.written_by)
        click.echo(summary(report), err=True)
    if report.status in ("failed", "cancelled"):
        if report.error:
            click.echo(f"Error: run {report.run_id} failed: {report.error}", err=True)
            click.echo(f"  help: mend the cause, then: sage runs resume {report.run_id}", err=True)
        raise click.exceptions.Exit(1)


def document(report: Report) -> dict[str, object]:
    """The object that ``--json`` prints."""
    steps = {
        name: {
            "rows_in": step.rows_in,
            "rows_out": step.rows_out,
            "absent": step.absent,
            "failed": step.failed,
            "seconds": step.seconds,
            "partitions": step.partitions,
            "memo": {"computed": step.computed, "remembered": step.remembered},
        }
        for name, step in report.steps.items()
    }
    found: dict[str, object] = {
        "run_id": report.run_id,
        "status": report.status,
        "outputs": report.outputs,
        "steps": steps,
        "tokens": report.tokens,
    }
    if report.error:
        found["error"] = report.error
    if report.failures:
        found["errors"] = report.failures
    if report.warnings:
        found["warnings"] = report.warnings
    return found


def summary(report: Report) -> str:
    """One line: the run, its status, and what was reused."""
    jobs = {name: step.partitions for name, step in report.steps.items()}
    reused = sorted(name for name, parts in jobs.items() if parts.total and parts.reused == parts.total)
    ran = sorted(name for name, parts in jobs.items() if parts.run)
    line = f"run {report.run_id}: {report.status}; ran {', '.join(ran) or 'nothing'}"
    return line + (f"; reused {', '.join(reused)}" if reused else "")


def _say_failures(report: Report) -> None:
    for failure in report.failures[:20]:
        click.echo(f"skipped: step {failure.step!r}, row {failure.row}: {failure.message}", err=True)
    if len(report.failures) > 20:
        click.echo(f"skipped: … and {len(report.failures) - 20} more: sage runs show {report.run_id}", err=True)


def _say_outputs(outputs: dict[str, Any], written_by: Mapping[str, str]) -> None:
    """Passages first, as quotations with their places; then every other output, labelled with the model behind it."""
    quoted = {name: value for name, value in outputs.items() if _is_passages(value)}
    for passages in quoted.values():
        for number, passage in enumerate(passages, 1):
            click.secho(f"[{number}] {passage['path']}:{passage['start']}-{passage['end']}", bold=True)
            for line in str(passage["text"]).strip().splitlines():
                click.echo(f"    {line}")
            click.echo()
    for name, value in outputs.items():
        if name in quoted or value in (None, []):
            continue
        model = written_by.get(name) if quoted else None
        label = f"{name}, by {model}" if model else name
        text = value.strip() if isinstance(value, str) else encode_json(value)
        click.echo(f"{label}:\n{text}" if "\n" in text else f"{label}: {text}")
        if model:
            click.echo(f"  (for better answers set [models.{model}] in the workflow to a larger model)", err=True)


def _is_passages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and {"path", "start", "end", "text"} <= item.keys() for item in value)
    )
