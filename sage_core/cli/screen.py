"""What a person sees while a run is driven, all of it on stderr: the plan, a moving line, and what Ctrl-C does."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from sage_core.cli.output import progress_allowed

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from sage_core.kernel.runtime.preview import Decision
    from sage_core.kernel.runtime.progress import Event, Planned, Progress, Stopping

PATIENCE = 0.5


class Screen:
    """Draws progress while a run is driven; no moving line when piped, in CI, and with ``--json``.

    Args:
        patience: seconds a run may take before a progress bar is worth importing rich for.
    """

    def __init__(
        self, workflow: str, *, as_json: bool, warnings: Sequence[str] = (), patience: float = PATIENCE
    ) -> None:
        self._workflow = workflow
        self._patience = patience
        self._moving = progress_allowed(as_json)
        self._started = time.monotonic()
        self._bar: Bar | None = None
        self._task: Any = None
        #: Tokens and seconds when the first token was seen.
        self._first: tuple[int, float] | None = None
        for warning in warnings:
            click.echo(f"warning: {warning}", err=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @property
    def seconds(self) -> float:
        """How long the run has taken so far."""
        return time.monotonic() - self._started

    def watch(self, event: Event) -> None:
        """Show an event of the run."""
        # By name, so that this module does not import the kernel to tell three records apart.
        match type(event).__name__:
            case "Planned":
                self._plan(event)  # type: ignore[arg-type] # see above
            case "Progress":
                self._move(event)  # type: ignore[arg-type] # see above
            case "Stopping":
                self._stop(event)  # type: ignore[arg-type] # see above

    def _plan(self, planned: Planned) -> None:
        if self._moving:
            self._close()
            click.echo(
                f"plan: {plan_line(planned.steps)} ({_count(planned.workers, 'worker process', 'es')})", err=True
            )

    def _move(self, progress: Progress) -> None:
        if not self._moving or self.seconds < self._patience:
            return
        done, known, unit = progress.parts_done, progress.parts_known, "partitions"
        if known < 2:
            done, known, unit = progress.counts.get("done", 0), sum(progress.counts.values()), "jobs"
        status = [f"{done}/{known} {unit}"]
        if progress.rows_computed and progress.seconds:
            status.append(f"{progress.rows_computed / progress.seconds:.1f} rows/s")
        if progress.tokens:
            # Since the first token: loading the model and reading the prompt are no part of its speed.
            tokens, seconds = self._first = self._first or (progress.tokens, progress.seconds)
            if progress.seconds > seconds:
                status.append(f"{(progress.tokens - tokens) / (progress.seconds - seconds):.1f} tokens/s")
        if progress.running:
            status.append(", ".join(progress.running))
        shown = " · ".join(status)
        if self._bar is None:
            self._bar = _bar()
            self._task = self._bar.add_task(self._workflow, total=known, completed=done, status=shown)
            self._bar.start()
        else:
            self._bar.update(self._task, completed=done, total=known, status=shown)

    def _stop(self, stopping: Stopping) -> None:
        self._close()
        self._moving = False
        text = "stopping: work in progress is given back; press Ctrl-C again to stop at once"
        if stopping.at_once:
            text = f"stopped at once; finished work is kept\n  help: sage runs resume {stopping.run_id}"
        if sys.stderr.isatty():
            text = f"\n{text}"  # the terminal has shown ^C
        # Called from a signal handler: the buffered streams may be in the middle of a write. The terminal may be gone.
        with contextlib.suppress(OSError):
            os.write(2, f"{text}\n".encode())

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def plan_line(steps: dict[str, Decision]) -> str:
    """What is about to be done: ``reuse files, ask; run 14 of 16 partitions of parse, chunk; then index``."""
    reuse = [name for name, step in steps.items() if step.verb == "reuse"]
    later = [name for name, step in steps.items() if step.verb == "deferred"]
    runs: dict[str, list[str]] = {}
    for name, step in steps.items():
        if step.verb == "run":
            share = "" if step.jobs == 1 else f"{step.jobs - step.reused} of {step.jobs} partitions of "
            runs.setdefault(share, []).append(name)
    parts = [f"reuse {', '.join(reuse)}"] if reuse else []
    parts += [f"run {share}{', '.join(names)}" for share, names in runs.items()]
    return "; ".join([*parts, *([f"then {', '.join(later)}"] if later else [])])


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{'' if number == 1 else plural}"


def _bar() -> Bar:
    from rich.console import Console  # noqa: PLC0415 - 49 ms that only a long run on a terminal pays
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn  # noqa: PLC0415

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
    )
