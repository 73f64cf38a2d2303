"""What the job store keeps and returns: rows as frozen records; times are epoch ms of the database's clock."""

from __future__ import annotations

from typing import Literal

from sage_core.common.records import Job, JobState, Record, RunStatus

WorkerKind = Literal["supervisor", "worker", "engine_host"]
Outcome = Literal["done", "failed", "retried", "expired", "timeout", "lost", "given_back", "cancelled"]

#: A run was queued; the one before was unfinished; it was too late for it; no run could be made.
FireOutcome = Literal["fired", "skipped", "missed", "failed"]
#: What an enqueue does when a key is taken: keep the run that has it, cancel that one, or refuse the new one.
OnConflict = Literal["ignore", "replace", "error"]

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
    #: Worker id of the process that drives the run; empty when the workers of its queue do.
    supervisor: str = ""
    #: Where its jobs wait.
    queue: str = "default"
    #: Larger goes first, as far as the ordering of jobs heeds it.
    priority: int = 0
    #: At most one unfinished run has it; see `JobStore.enqueue`.
    unique_key: str | None = None
    #: At most one run ever has it, finished ones included.
    idempotency_key: str | None = None
    #: Versions the run was planned with: msgpack of distribution → version.
    pins: bytes = b""
    #: Name of the deployment it was started from.
    deployment: str | None = None
    #: The run it was forked from.
    forked_from: str | None = None


class StoredRun(NewRun):
    """A run as the store keeps it."""

    #: Counts the times the run was started or resumed; 1 is the first.
    session: int = 1
    outputs: bytes | None = None
    error: str = ""
    created_at: int = 0
    started_at: int | None = None
    finished_at: int | None = None
    #: The last session whose end the plugins have heard of.
    announced: int = 0


class Pulse(Record):
    """How far a run is, at a glance."""

    status: RunStatus
    session: int
    #: Worker id of the process that drives it; empty when the workers of its queue do.
    supervisor: str
    #: A job of it has failed for good.
    failed: bool
    #: A job of it is ready or running.
    left: bool

    @property
    def over(self) -> bool:
        """Whether it has ended, or somebody has to end it."""
        return self.status in ENDED or self.failed or not self.left


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
    #: The node meant to take it; others may claim it `patience_ms` after it is inserted.
    node: str | None = None
    patience_ms: int = 0
    #: What it asks of a node, as `needs_text` writes it; empty is nothing in particular.
    needs: str = ""
    #: Whoever runs it holds a slot of this key; `Transaction.make_slots` says how many there are.
    limit_key: str | None = None


class Completion(Record):
    """What an attempt that ran to its end leaves: its result, whole or partial."""

    job_id: int
    fence: int
    run_id: str
    #: Session of the run in which it ran.
    session: int
    result_key: str | None = None
    #: The result itself; None when it is kept already.
    body: bytes | None = None
    #: Rows that failed and were skipped.
    failures: int = 0
    #: The result was found, not computed.
    reused: bool = False


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
    #: The node meant to take it, or the one it runs or ran on.
    node: str | None = None
    #: Until then no other node may claim it.
    node_until: int | None = None
    needs: str = ""
    limit_key: str | None = None
    #: Rows that failed and were skipped in its result.
    failures: int = 0


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
    node: str = ""
    queue: str = ""


class WorkerRow(NewWorker):
    """A process as the store knows it."""

    started_at: int = 0
    heartbeat_at: int = 0
    stopped_at: int | None = None
    #: Cold start in ms by phase, as JSON.
    phases: str = ""


class QueueRow(Record):
    """A queue as the view `sage_queue_depth` and the switch see it."""

    name: str
    paused: bool = False
    #: Jobs that a worker could claim now, jobs that are due later, and those that wait because the queue is paused.
    ready: int = 0
    delayed: int = 0
    held: int = 0
    running: int = 0
    blocked: int = 0
    #: When the first job of those three became due, or will be.
    oldest_run_at: int | None = None


class NodeRow(Record):
    """A node as its supervisor announced it."""

    name: str
    #: Worker id of the supervisor that speaks for it.
    supervisor: str
    host: str
    #: A `Node` as JSON.
    body: str
    #: The node's clock minus the database's, in ms.
    clock_ms: int = 0
    started_at: int = 0
    heartbeat_at: int = 0
    stopped_at: int | None = None


class DeploymentRow(Record):
    """A workflow kept under a name, to be started by it."""

    name: str
    #: Counts the times it was deployed.
    version: int
    workflow: str
    graph: bytes
    graph_hash: str
    #: Parameter values given when it was deployed: msgpack.
    params: bytes
    #: As `NewRun.options`.
    options: bytes
    queue: str
    created_at: int = 0


class ScheduleRow(Record):
    """A trigger of a deployment; `next_at` is when it fires next."""

    id: str
    deployment: str
    #: The trigger as declared, as JSON.
    spec: str
    paused: bool = False
    next_at: int | None = None
    created_at: int = 0


class FireRow(Record):
    """One fire time and what became of it."""

    schedule: str
    fire_at: int
    outcome: FireOutcome
    run_id: str | None = None
    fired_at: int = 0
    #: Why a fire time failed.
    error: str = ""


__all__ = [
    "ENDED",
    "AttemptRow",
    "Completion",
    "DeploymentRow",
    "FileDigest",
    "FireOutcome",
    "FireRow",
    "Job",
    "JobRow",
    "JobState",
    "NewJob",
    "NewRun",
    "NewWorker",
    "NodeRow",
    "OnConflict",
    "Outcome",
    "Pulse",
    "QueueRow",
    "ScheduleRow",
    "StoredRun",
    "WorkerKind",
    "WorkerRow",
]
