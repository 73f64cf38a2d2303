"""What a run came to, as people and programs read it: passages, answers, skipped rows, one line of summary, JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from sage_core.cli.output import encode_json, print_json

if TYPE_CHECKING:
    from sage_core.common.records import RowFailure
    from sage_core.kernel.runtime.report import Report, StepReport

#: Skipped rows that are listed one by one.
LISTED = 20


def finish(report: Report, *, as_json: bool, seconds: float) -> None:
    """Print a report and leave with the exit code it calls for."""
    if as_json:
        print_json(document(report))
    else:
        for warning in report.warnings:
            click.echo(f"warning: {warning}", err=True)
        say_skipped(report.failures, f"sage runs show {report.run_id} --errors", err=True)
        _say_outputs(report.outputs, report.written_by)
        click.echo(summary(report, seconds), err=True)
    if report.status in ("failed", "cancelled"):
        happened = "failed" if report.status == "failed" else "stopped"
        mend = "mend the cause, then" if report.status == "failed" else "to continue"
        click.echo(f"Error: run {report.run_id} {happened}: {report.error}", err=True)
        click.echo(f"  help: {mend}: sage runs resume {report.run_id}", err=True)
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


def summary(report: Report, seconds: float) -> str:
    """One line: the run, its status, how long it took, what ran and what was reused, in the workflow's order."""
    took = "took" if report.status in ("failed", "cancelled") else "in"
    line = f"run {report.run_id}: {report.status} {took} {duration(seconds)}"
    ran = [name for name, step in report.steps.items() if step.partitions.run and (step.rows_in or step.rows_out)]
    whole = [name for name in ran if not report.steps[name].partitions.reused]
    reused = [name for name, step in report.steps.items() if _all_reused(step)]
    parts = [f"ran {', '.join(whole)}"] if whole else []
    parts += _shares({name: report.steps[name] for name in ran if name not in whole})
    if not ran and reused:
        parts.append("everything was reused")
    elif reused:
        parts.append(f"reused {', '.join(reused)}")
    return "; ".join([line, *parts])


def duration(seconds: float) -> str:
    """Seconds for people: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def say_skipped(failures: tuple[RowFailure, ...], rest: str, *, err: bool) -> None:
    """List the first skipped rows; `rest` is the command that shows all."""
    for failure in failures[:LISTED]:
        click.echo(f"skipped: step {failure.step!r}, row {failure.row}: {failure.message}", err=err)
    if len(failures) > LISTED:
        click.echo(f"skipped: … and {len(failures) - LISTED} more; all of them: {rest}", err=err)


def _all_reused(step: StepReport) -> bool:
    parts = step.partitions
    # A branch that was not taken has nothing to reuse.
    return bool(parts.total) and parts.reused == parts.total and bool(step.rows_in or step.rows_out)


def _shares(steps: Mapping[str, StepReport]) -> list[str]:
    """Steps of which a part ran, those with the same share together: ``ran 2 of 16 partitions of parse, chunk``."""
    shares: dict[tuple[int, int], list[str]] = {}
    for name, step in steps.items():
        shares.setdefault((step.partitions.run, step.partitions.total), []).append(name)
    return [f"ran {run} of {total} partitions of {', '.join(names)}" for (run, total), names in shares.items()]


def _say_outputs(outputs: dict[str, Any], written_by: Mapping[str, str]) -> None:
    """Passages first, as quotations with their places; then every other output, labelled with the model behind it."""
    quoted = {name: value for name, value in outputs.items() if _is_passages(value)}
    for passages in quoted.values():
        for number, passage in enumerate(passages, 1):
            click.secho(f"[{number}] {passage['path']}:{passage['start']}-{passage['end']}", bold=True)
            for line in str(passage["text"]).strip().splitlines():
                click.echo(f"    {line}".rstrip())
            click.echo()
    for name, value in outputs.items():
        if name in quoted or value in (None, []):
            continue
        model = written_by.get(name)
        text = value.strip() if isinstance(value, str) else encode_json(value)
        click.secho(f"{name}, by {model}:" if model else f"{name}:", bold=True, nl=False)
        click.echo(f"\n{text}" if "\n" in text or model else f" {text}")
    for model in dict.fromkeys(written_by[name] for name in outputs if name in written_by and outputs[name]):
        trust = "check it against the passages above; " if quoted else ""
        click.echo(
            f"note: {model} wrote this; {trust}for better answers name a larger model in [models.{model}] of the "
            "workflow (sage models list)",
            err=True,
        )


def _is_passages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and {"path", "start", "end", "text"} <= item.keys() for item in value)
    )
