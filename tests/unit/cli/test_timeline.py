"""Tests of sage_core.cli.timeline: fixed attempts as lines, figures and pictures."""

from __future__ import annotations

import click
import pytest

from sage_core.cli.timeline import Axis, History, Line, Span, draw, job_lines, stage_lines, took
from sage_core.common.records import JobState
from sage_core.platform.records import AttemptRow, JobRow, Outcome

#: When the run was submitted: epoch ms.
T0 = 1_000_000
STAGES = {"files": "files", "parse": "parse, chunk"}


def job(id: int, stage: str, part: int, state: JobState, *, run_at: int = 0, **more: object) -> JobRow:
    fields = {"run_id": "r1", "fence": 1, "attempt": 1, "max_attempts": 3, "start": 0, "stop": 1, **more}
    return JobRow(id=id, stage=stage, part=part, state=state, run_at=T0 + run_at, **fields)  # type: ignore[arg-type]


def attempt(job_id: int, start: int, stop: int, outcome: Outcome, fence: int = 1) -> AttemptRow:
    return AttemptRow(
        job_id=job_id,
        fence=fence,
        attempt=fence,
        worker=f"w{fence}",
        started_at=T0 + start,
        finished_at=T0 + stop,
        outcome=outcome,
    )


def history(jobs: list[JobRow], attempts: list[AttemptRow], edges: tuple[tuple[int, int], ...] = ()) -> History:
    return History(created_at=T0, jobs=jobs, attempts=attempts, edges=edges)


#: A source; a job that was lost once and one that failed for good, both after it; one whose result was found.
RUN = history(
    [
        job(1, "files", 0, "done"),
        job(2, "parse", 0, "done", run_at=500),
        job(3, "parse", 1, "failed"),
        job(4, "parse", 2, "done", reused=True),
    ],
    [
        attempt(1, 100, 200, "done"),
        attempt(2, 300, 400, "lost", 1),
        attempt(2, 500, 700, "done", 2),
        attempt(3, 200, 1000, "failed"),
    ],
    edges=((1, 2), (1, 3), (1, 4)),
)


def spans(line: Line) -> list[tuple[str, int, int | None]]:
    return [(span.kind, span.start_ms, span.stop_ms) for span in line.spans]


def test_a_job_waits_runs_is_lost_and_runs_again() -> None:
    files, lost, failed, reused = job_lines(RUN, STAGES)
    assert [line.name for line in (files, lost, failed, reused)] == [
        "files[0]",
        "parse, chunk[0]",
        "parse, chunk[1]",
        "parse, chunk[2]",
    ]
    assert spans(files) == [("waiting", 0, 100), ("done", 100, 200)]
    # The retry moved `run_at`; the job before it tells when it was first ready.
    assert spans(lost) == [("waiting", 200, 300), ("retried", 300, 400), ("waiting", 400, 500), ("done", 500, 700)]
    assert spans(failed) == [("failed", 200, 1000)]
    assert (lost.attempts, lost.failed, lost.waiting_ms, lost.running_ms) == (2, 1, 200, 300)
    assert [(span.fence, span.worker) for span in lost.spans if span.kind != "waiting"] == [(1, "w1"), (2, "w2")]
    assert (reused.reused, reused.attempts, reused.spans) == (1, 0, ())


def test_a_stage_sums_its_jobs_up() -> None:
    files, parse = stage_lines(RUN, STAGES)
    assert (files.name, files.jobs, files.attempts) == ("files", 1, 1)
    assert (parse.name, parse.jobs, parse.reused, parse.attempts, parse.failed) == ("parse, chunk", 3, 1, 3, 2)
    assert (parse.waiting_ms, parse.running_ms) == (200, 1100)
    assert len(parse.spans) == 5


def test_what_lasts_has_no_end() -> None:
    jobs = [
        job(1, "files", 0, "running", claimed_at=T0 + 40, fence=2, worker="w2"),
        job(2, "parse", 0, "ready", run_at=20),
        job(3, "parse", 1, "blocked"),
    ]
    running, ready, blocked = job_lines(history(jobs, [attempt(1, 10, 30, "given_back")]), STAGES)
    assert spans(running) == [("waiting", 0, 10), ("stopped", 10, 30), ("waiting", 30, 40), ("running", 40, None)]
    assert (running.spans[-1].fence, running.spans[-1].worker) == (2, "w2")
    assert (running.failed, running.attempts, running.running_ms) == (0, 2, 20)
    assert spans(ready) == [("waiting", 20, None)]
    assert blocked.spans == ()


def test_waiting_is_left_out_where_nothing_tells_when_it_began() -> None:
    (line,) = job_lines(history([job(1, "files", 0, "done", run_at=90)], [attempt(1, 50, 60, "done")]), STAGES)
    assert spans(line) == [("done", 50, 60)]


def plain(lines: list[str]) -> list[str]:
    return [click.unstyle(line).rstrip() for line in lines]


def test_the_picture_of_stages() -> None:
    assert plain(draw(stage_lines(RUN, STAGES), width=82)) == [
        "files        ··██                 100 ms",
        "parse, chunk     xxxxxxxxxxxxxxxx 800 ms, 3 jobs, 1 reused, 2 of 3 attempts failed",
        "             · waiting  █ done  ░ retried  x failed",
    ]


def test_the_picture_of_jobs_keeps_to_the_width() -> None:
    drawn = plain(draw(job_lines(RUN, STAGES), width=67))
    assert drawn == [
        "files[0]        ··██                 100 ms",
        "parse, chunk[0]     ··░░··████       400 ms, 1 of 2 attempts failed",
        "parse, chunk[1]     xxxxxxxxxxxxxxxx 800 ms, 1 of 1 attempts failed",
        "parse, chunk[2]                      reused",
        "                · waiting  █ done  ░ retried  x failed",
    ]
    assert max(map(len, drawn)) <= 67


def test_colours_come_from_the_kind() -> None:
    first = draw(stage_lines(RUN, STAGES), width=82)[0]
    assert click.style("·" * 2, fg="bright_black") + click.style("█" * 2, fg="green") in first


def test_what_goes_on_is_drawn_up_to_the_moment_given() -> None:
    lines = job_lines(history([job(1, "files", 0, "running", claimed_at=T0)], []), STAGES)
    assert plain(draw(lines, width=31, now=5_000))[0] == "files[0] ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓ 5.0 s"


def test_a_pause_between_two_sessions_is_cut_short() -> None:
    day = 86_400_000
    attempts = [attempt(1, 0, 10_000, "given_back"), attempt(1, day, day + 10_000, "done", 2)]
    lines = job_lines(history([job(1, "files", 0, "done")], attempts), STAGES)
    bar, legend = plain(draw(lines, width=74))
    assert bar.count("▒") >= 5
    assert bar.count("█") >= 5
    assert bar.endswith("24 h 00 min")
    axis = Axis(lines, 40, day + 10_000)
    assert axis.column(day + 10_000) == 40
    assert 0 < axis.column(10_000) < axis.column(day)
    other = job_lines(history([job(1, "files", 0, "done", run_at=day)], attempts), STAGES)
    assert "┊ a pause" in legend
    assert "┊" in plain(draw([*lines, Line(name="idle"), *other], width=74))[1]


def test_long_names_are_cut_and_nothing_is_no_picture() -> None:
    lines = [Line(name="x" * 60, spans=(Span(kind="done", start_ms=0, stop_ms=10),))]
    assert draw(lines, width=80)[0].startswith("x" * 27 + "… ")
    assert draw([Line(name="idle")], width=80) == []


@pytest.mark.parametrize(("ms", "text"), [(0, "0 ms"), (999, "999 ms"), (1000, "1.0 s"), (65_000, "65 s")])
def test_durations(ms: int, text: str) -> None:
    assert took(ms) == text
