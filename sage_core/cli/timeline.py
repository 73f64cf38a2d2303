"""A run over time, for `sage runs show`: one line per stage or job, with what its attempts did and how long it took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Literal

import click

from sage_core.common.records import Record
from sage_core.platform.records import AttemptRow, JobRow

Kind = Literal["waiting", "done", "stopped", "running", "retried", "failed"]
#: How each kind is drawn, and its colour on a terminal; where several meet in one place, the last one shows.
MARKS: Mapping[Kind, tuple[str, str]] = {
    "waiting": ("·", "bright_black"),
    "done": ("█", "green"),
    "stopped": ("▒", "bright_black"),
    "running": ("▓", "cyan"),
    "retried": ("░", "yellow"),
    "failed": ("x", "red"),
}
#: Stands where nothing ran for longer than that, and than the run worked in all: the time in between is not drawn.
CUT, CUT_MS = "┊", 10_000
#: Widest name, and narrowest drawing.
NAME, NARROW = 28, 10


class Span(Record):
    """One stretch of a job's time; times are ms since the run was submitted."""

    kind: Kind
    start_ms: int
    #: None while it lasts.
    stop_ms: int | None
    fence: int = 0
    worker: str = ""


class Line(Record):
    """A stage or a job over time."""

    name: str
    jobs: int = 1
    #: Jobs whose result was found, not computed.
    reused: int = 0
    #: Attempts, and how many of them failed or lost their worker.
    attempts: int = 0
    failed: int = 0
    #: Sums over the jobs of what has ended: waiting for a worker, and in the hands of one.
    waiting_ms: int = 0
    running_ms: int = 0
    spans: tuple[Span, ...] = ()


class History(Record):
    """What the store knows of a run's time."""

    created_at: int
    jobs: Sequence[JobRow]
    attempts: Sequence[AttemptRow]
    #: Pairs (before, after) of jobs.
    edges: Sequence[tuple[int, int]] = ()


def job_lines(history: History, stages: Mapping[str, str]) -> list[Line]:
    """One line per job of these stages, in their order: stage → its name to show."""
    return [
        _line(f"{name}[{job.part}]", [job.reused], spans)
        for stage, name in stages.items()
        for job, spans in _spans_of(history, stage)
    ]


def stage_lines(history: History, stages: Mapping[str, str]) -> list[Line]:
    """One line per stage: what its jobs did, laid over one another."""
    found = []
    for stage, name in stages.items():
        own = _spans_of(history, stage)
        found.append(_line(name, [job.reused for job, _ in own], [span for _, spans in own for span in spans]))
    return found


def _spans_of(history: History, stage: str) -> list[tuple[JobRow, list[Span]]]:
    attempts: dict[int, list[AttemptRow]] = {}
    for attempt in history.attempts:
        attempts.setdefault(attempt.job_id, []).append(attempt)
    done_at = {a.job_id: a.finished_at for a in history.attempts if a.outcome == "done"}
    freed_at: dict[int, int] = {}
    for before, after in history.edges:
        freed_at[after] = max(freed_at.get(after, 0), done_at.get(before, 0))
    jobs = sorted((job for job in history.jobs if job.stage == stage), key=lambda job: job.part)
    found = []
    for job in jobs:
        own = attempts.get(job.id, [])
        found.append((job, list(_spans(job, own, freed_at.get(job.id, 0), history.created_at))))
    return found


def _line(name: str, reused: Sequence[bool], spans: Sequence[Span]) -> Line:
    ended = [(span.kind, span.stop_ms - span.start_ms) for span in spans if span.stop_ms is not None]
    return Line(
        name=name,
        jobs=len(reused),
        reused=sum(reused),
        attempts=sum(span.kind != "waiting" for span in spans),
        failed=sum(span.kind in ("retried", "failed") for span in spans),
        waiting_ms=sum(ms for kind, ms in ended if kind == "waiting"),
        running_ms=sum(ms for kind, ms in ended if kind != "waiting"),
        spans=tuple(spans),
    )


def _spans(job: JobRow, attempts: Sequence[AttemptRow], freed_at: int, origin: int) -> Iterable[Span]:
    first = attempts[0].started_at if attempts else job.claimed_at or job.run_at
    # A retry moves `run_at`: then it does not tell when the job was first ready, but what it waited for may.
    ready = max(freed_at, job.run_at) if job.run_at <= first else freed_at or None
    for attempt in attempts:
        if ready is not None and ready < attempt.started_at:
            yield Span(kind="waiting", start_ms=ready - origin, stop_ms=attempt.started_at - origin)
        kind: Kind = "retried"
        if attempt.outcome == "done":
            kind = "done"
        elif attempt.outcome in ("given_back", "cancelled"):
            kind = "stopped"
        elif job.state == "failed" and attempt is attempts[-1]:
            kind = "failed"
        yield Span(
            kind=kind,
            start_ms=attempt.started_at - origin,
            stop_ms=attempt.finished_at - origin,
            fence=attempt.fence,
            worker=attempt.worker,
        )
        ready = attempt.finished_at
    if job.state == "running" and job.claimed_at is not None:
        if ready is not None and ready < job.claimed_at:
            yield Span(kind="waiting", start_ms=ready - origin, stop_ms=job.claimed_at - origin)
        start = job.claimed_at - origin
        yield Span(kind="running", start_ms=start, stop_ms=None, fence=job.fence, worker=job.worker or "")
    elif job.state == "ready" and ready is not None:
        yield Span(kind="waiting", start_ms=ready - origin, stop_ms=None)


class Axis:
    """Where a moment lies in a drawing of `width` columns; pauses longer than all work together are cut out."""

    def __init__(self, lines: Sequence[Line], width: int, end: int) -> None:
        spans = [span for line in lines for span in line.spans]
        self._end = end
        busy = _merged((s.start_ms, _until(s, end)) for s in spans if s.kind != "waiting")
        longest = max(CUT_MS, sum(stop - start for start, stop in busy))
        self.start = min((span.start_ms for span in spans), default=0)
        #: (from, to) of what is left out, and the moment it is left out at.
        self._cuts: list[tuple[int, int]] = []
        at = self.start
        for start, stop in [*busy, (end, end)]:
            if start - at > longest:
                self._cuts.append((at + longest // 2, start - longest // 2))
            at = max(at, stop)
        self.width = width
        self._length = max(1, self._flat(end))

    def columns(self, span: Span) -> range:
        """Where a span is drawn; whatever happened takes one column."""
        first = min(self.column(span.start_ms), self.width - 1)
        return range(first, max(self.column(_until(span, self._end)), first + 1))

    def column(self, moment: int) -> int:
        """Columns before a moment."""
        return self._flat(moment) * self.width // self._length

    def cuts(self) -> list[int]:
        """Columns at which time is left out."""
        return [self.column(start) for start, _ in self._cuts]

    def _flat(self, moment: int) -> int:
        return moment - self.start - sum(max(0, min(moment, stop) - start) for start, stop in self._cuts)


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return found


def draw(lines: Sequence[Line], *, width: int, now: int = 0) -> list[str]:
    """The lines of a picture at most `width` columns wide, with colours that `click.echo` leaves out where piped.

    Args:
        now: ms since the run was submitted; what is going on is drawn up to then.
    """
    spans = [span for line in lines for span in line.spans]
    if not spans:
        return []
    end = max([now, *(span.start_ms if span.stop_ms is None else span.stop_ms for span in spans)])
    label = min(NAME, max(len(line.name) for line in lines))
    figures = [_figures(line, end) for line in lines]
    axis = Axis(lines, max(NARROW, width - label - max(map(len, figures)) - 2), end)
    kinds = [kind for kind in MARKS if any(span.kind == kind for span in spans)]
    drawn = [
        f"{_short(line.name, label):{label}} {_bar(line, axis)} {told}"
        for line, told in zip(lines, figures, strict=True)
    ]
    cut = [f"{CUT} a pause"] if axis.cuts() else []
    return [*drawn, f"{'':{label}} {'  '.join([*(f'{_styled(kind, 1)} {kind}' for kind in kinds), *cut])}"]


def _bar(line: Line, axis: Axis) -> str:
    cells: list[Kind | Literal["cut"] | None] = [None] * axis.width
    for kind in MARKS:
        for span in line.spans:
            if span.kind == kind:
                for column in axis.columns(span):
                    cells[column] = kind
    for place in axis.cuts():
        cells[place] = cells[place] or "cut"
    return "".join(_styled(cell, len(list(same))) for cell, same in groupby(cells))


def _styled(cell: Kind | Literal["cut"] | None, count: int) -> str:
    if cell is None or cell == "cut":
        return (CUT if cell else " ") * count
    mark, colour = MARKS[cell]
    return click.style(mark * count, fg=colour)


def _until(span: Span, end: int) -> int:
    return end if span.stop_ms is None else span.stop_ms


def _figures(line: Line, end: int) -> str:
    ran = [span for span in line.spans if span.kind != "waiting"]
    told = []
    if ran:
        told.append(took(max(_until(span, end) for span in ran) - min(span.start_ms for span in ran)))
    elif line.spans:
        told.append("not started")
    if line.jobs > 1:
        told.append(f"{line.jobs} jobs")
    if line.reused:
        told.append(f"{line.reused} reused" if line.jobs > 1 else "reused")
    if line.failed:
        told.append(f"{line.failed} of {line.attempts} attempts failed")
    return ", ".join(told)


def took(ms: int) -> str:
    """Milliseconds for people: ``420 ms``, then as `duration` has it."""
    from sage_core.cli.outcome import duration  # noqa: PLC0415 - drawing alone needs it

    return f"{ms} ms" if ms < 1000 else duration(ms / 1000)


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else f"{name[: width - 1]}…"
