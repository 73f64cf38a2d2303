"""What jobs say they did, line by line, and whether the store agrees."""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from sage_core.common.records import Job
from sage_core.platform.records import JobRow
from sage_core.platform.store import JobStore

#: claimed: the claim was committed. ran: the job did its work. accepted: its completion was committed.
#: refused: the store said that the attempt is over. unavailable: the store could not say.
Event = Literal["claimed", "ran", "accepted", "refused", "unavailable"]


class Line(NamedTuple):
    """One thing that happened; `at` is ns of the machine's monotonic clock, which all processes share."""

    at: int
    event: str
    run: str
    stage: str
    part: int
    job: int
    fence: int
    worker: str


class History:
    """An append-only file that every process writes to; a line is one write, so that lines never mix."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_APPEND | os.O_CREAT | os.O_RDWR, 0o666)
        self._lines: list[Line] = []
        self._read = 0

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def say(self, event: Event, worker: str, job: Job | None = None) -> None:
        """Add a line."""
        what = ("-", "-", 0, 0, 0) if job is None else (job.run_id, job.stage, job.part, job.id, job.fence)
        line = Line(time.monotonic_ns(), event, *what, worker)
        os.write(self._file, (" ".join(map(str, line)) + "\n").encode())

    def lines(self) -> list[Line]:
        """Everything said until now."""
        more = os.pread(self._file, 1 << 24, self._read)
        whole = more[: more.rfind(b"\n") + 1]
        self._read += len(whole)
        for text in whole.decode().splitlines():
            at, event, run, stage, part, job, fence, worker = text.split(" ")
            self._lines.append(Line(int(at), event, run, stage, int(part), int(job), int(fence), worker))
        return self._lines


class Verdict(NamedTuple):
    """What is wrong; a run without anything wrong has two empty lists."""

    #: Work that was asked for and is not recorded.
    lost: list[str]
    #: Work that was recorded twice, or by somebody who did not own it.
    duplicated: list[str]


def result_key(job_id: int, fence: int) -> str:
    """Where an attempt puts its result: a key per attempt, so that a second one cannot hide behind the first."""
    return f"{job_id}/{fence}"


def check(lines: Iterable[Line], store: JobStore, plan: Mapping[str, int]) -> Verdict:
    """Hold what was planned, what jobs said and what the store holds against one another.

    Args:
        plan: run → how many parts its opener calls for. Every run has one opener, its parts, and one collect.
    """
    said: dict[int, list[Line]] = defaultdict(list)
    for line in lines:
        said[line.job].append(line)
    verdict = Verdict([], [])
    for run, parts in plan.items():
        jobs = store.jobs(run)
        _all_there(run, parts, jobs, verdict)
        ended = store.run(run)
        if (ended.status, ended.outputs) != ("succeeded", str(parts).encode()):
            verdict.lost.append(f"run {run} is {ended.status} with {ended.outputs!r} of {parts} parts: {ended.error}")
        recorded: dict[int, list[int]] = defaultdict(list)
        for attempt in store.attempts(run):
            if attempt.outcome == "done":
                recorded[attempt.job_id].append(attempt.fence)
        found = store.results([result_key(job.id, fence) for job in jobs for fence in range(job.fence + 1)])
        published: dict[int, list[int]] = defaultdict(list)
        for key in found:
            id, fence = key.split("/")
            published[int(id)].append(int(fence))
        for job in jobs:
            _one_effect(job, said[job.id], recorded[job.id], sorted(published[job.id]), verdict)
        _in_order(run, jobs, said, verdict)
    return verdict


def _name(job: JobRow) -> str:
    return f"job {job.id} ({job.run_id} {job.stage}/{job.part})"


def _all_there(run: str, parts: int, jobs: Sequence[JobRow], verdict: Verdict) -> None:
    wanted = Counter([("open", 0), ("collect", 0), *(("part", n) for n in range(parts))])
    found = Counter((job.stage, job.part) for job in jobs)
    verdict.lost.extend(f"run {run} has no job {stage}/{part}" for stage, part in (wanted - found))
    verdict.duplicated.extend(f"run {run} has {stage}/{part} too often" for stage, part in (found - wanted))


def _one_effect(
    job: JobRow, said: Sequence[Line], recorded: Sequence[int], published: Sequence[int], verdict: Verdict
) -> None:
    if job.state != "done":
        verdict.lost.append(f"{_name(job)} is {job.state} after fence {job.fence}: {job.error}")
        return
    accepted = [line.fence for line in said if line.event == "accepted"]
    claims = Counter(line.fence for line in said if line.event == "claimed")
    ran = {(line.fence, line.worker) for line in said if line.event == "ran"}
    if len(accepted) > 1:
        verdict.duplicated.append(f"{_name(job)} was accepted under the fences {accepted}")
    if len(recorded) != 1:
        verdict.duplicated.append(f"{_name(job)} was recorded as done under the fences {recorded}")
    if not published:
        verdict.lost.append(f"{_name(job)} is done without a result")
    elif published != [job.fence] or job.result_key != result_key(job.id, job.fence):
        verdict.duplicated.append(f"{_name(job)} with fence {job.fence} has results of the fences {published}")
    if any(count > 1 for count in claims.values()):
        verdict.duplicated.append(f"{_name(job)} was claimed twice under one fence: {sorted(claims.elements())}")
    if any(fence != job.fence for fence in (*accepted, *recorded)):
        verdict.duplicated.append(f"{_name(job)} has fence {job.fence}, but {accepted} was accepted")
    if (job.fence, job.worker) not in ran:
        verdict.lost.append(f"{_name(job)} is done by {job.worker} under fence {job.fence}, which never ran it")


def _in_order(run: str, jobs: Sequence[JobRow], said: Mapping[int, Sequence[Line]], verdict: Verdict) -> None:
    """A collect runs after the parts it collects, as they were recorded."""

    def ran_at(job: JobRow) -> int:
        # The first time counts: who has not heard that its work was recorded does it once more, to be refused.
        return min((line.at for line in said[job.id] if line.event == "ran" and line.fence == job.fence), default=0)

    last = max((ran_at(job) for job in jobs if job.stage != "collect"), default=0)
    early = [job for job in jobs if job.stage == "collect" and job.state == "done" and ran_at(job) < last]
    verdict.lost.extend(f"{_name(job)} ran before what it collects" for job in early)
