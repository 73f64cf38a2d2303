"""What the job store keeps and returns: rows as frozen records; times are epoch ms of the database's clock."""

from __future__ import annotations

from typing import Literal

from sage_core.common.records import Job, JobState, Record, RunStatus

WorkerKind = Literal["supervisor", "worker", "engine_host"]
Outcome = Literal["done", "failed", "retried", "expired", "timeout", "lost", "given_back", "cancelled"]

#: Statuses a run does not leave by itself.
ENDED: frozenset[RunStatus] = frozenset(("succeeded", "partial", "failed", "cancelled"))


class NewRun(Record):
    """A run to insert; the store gives it its times and session 1."""

    id: str
    workflow: str
    status: RunStatus = "queued"
    graph: bytes = b""
    plan: bytes = b""
    #: Never holds a secret's value, only its reference.
    params: bytes = b""
    options: bytes = b""
    graph_hash: str = ""
    #: Worker id of the process that drives the run, or empty.
    supervisor: str = ""


class StoredRun(NewRun):
    """A run as the store keeps it."""

    #: Counts the times the run was started or resumed; 1 is the first.
    session: int = 1
    outputs: bytes | None = None
    error: str = ""
    created_at: int = 0
    started_at: int | None = None
    finished_at: int | None = None


class NewJob(Record):
    """A job to insert; it is ready unless `insert_edges` puts unfinished jobs before it."""

    run_id: str
    stage: str
    part: int = 0
    start: int = 0
    stop: int = 0
    queue: str = "default"
    #: Smaller goes first.
    rank: float = 0.0
    #: Claimable this long after insertion.
    delay_ms: int = 0
    max_attempts: int = 3
    #: An attempt that runs longer is taken from its worker, however often the worker renews; None means no limit.
    timeout_ms: int | None = None


class JobRow(Job):
    """A job with everything the store knows about it."""

    queue: str = "default"
    rank: float = 0.0
    run_at: int = 0
    timeout_ms: int | None = None
    claimed_at: int | None = None
    lease_until: int | None = None
    deadline_at: int | None = None
    #: Who holds the job, or held it last.
    worker: str | None = None
    #: Unfinished jobs before this one.
    deps_left: int = 0
    result_key: str | None = None
    #: The result was found, not computed.
    reused: bool = False
    #: Session of the run in which the job was finished.
    session: int | None = None
    #: The last attempt's error; kept while a retry waits.
    error: str = ""


class AttemptRow(Record):
    """One ended attempt: history, never read by the protocol itself."""

    job_id: int
    fence: int
    attempt: int
    worker: str
    started_at: int
    finished_at: int
    outcome: Outcome
    error: str = ""


class FileDigest(Record):
    """A file's digest, valid while size, modification time and inode are unchanged."""

    path: str
    size: int
    mtime_ns: int
    inode: int
    digest: str


class NewWorker(Record):
    """A process that announces itself; `id` is 128 random bits drawn at each start, never a host or pod name."""

    id: str
    kind: WorkerKind
    host: str
    #: The kernel's boot id, or empty where there is none.
    boot_id: str
    pid: int
    #: The process's start time in clock ticks since boot, which tells a recycled pid apart; 0 where unknown.
    ticks: int


class WorkerRow(NewWorker):
    """A process as the store knows it."""

    started_at: int = 0
    heartbeat_at: int = 0
    stopped_at: int | None = None


__all__ = [
    "ENDED",
    "AttemptRow",
    "FileDigest",
    "Job",
    "JobRow",
    "JobState",
    "NewJob",
    "NewRun",
    "NewWorker",
    "Outcome",
    "StoredRun",
    "WorkerKind",
    "WorkerRow",
]
