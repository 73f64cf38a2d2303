"""The things SAGE talks about: frozen, keyword-only, with units. One word per thing (docs/glossary.md)."""

from __future__ import annotations

from typing import Any, Literal, dataclass_transform

import msgspec

RunStatus = Literal["queued", "running", "succeeded", "partial", "failed", "cancelled"]
JobState = Literal["blocked", "ready", "running", "done", "failed", "cancelled"]
Kind = Literal["generate", "embed", "rerank", "tokenize"]
ServiceClass = Literal["interactive", "standard", "batch"]


class _KeywordOnly(msgspec.StructMeta):
    """Makes every field of every subclass keyword-only: msgspec inherits ``frozen``, but not ``kw_only``."""

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any) -> Any:
        return super().__new__(cls, name, bases, namespace, **{"kw_only": True, **config})


# For type checkers, which cannot know what the metaclass adds.
@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Record(msgspec.Struct, frozen=True, metaclass=_KeywordOnly):
    """Base of every record: immutable, keyword-only, comparable, encodable by msgspec."""


Lane = str
"""A pool's queue: the name of the model (requests) or of the queue (jobs)."""

# ---------------------------------------------------------------- models and engines


class ModelSpec(Record):
    """A model as a workflow or sage.toml names it: `name` is what steps use, the rest says who serves it."""

    name: str
    backend: str
    #: Where the weights are: a folder, ``hf:org/name``, a URL, or empty for what the backend finds by name.
    source: str = ""
    #: Backend options, passed through and checked by the backend.
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    #: What one engine of this model reserves from a node: cpu (cores), memory (bytes), gpu (count).
    needs: dict[str, Any] = msgspec.field(default_factory=dict)


class Capacity(Record):
    """What an engine can hold at once; the manager turns it into credits."""

    #: Requests that may be in the engine together.
    sequences: int = 1
    #: Padded tokens one embedding batch may carry.
    batch_tokens: int = 16_384
    #: Rows one embedding batch may carry.
    batch_rows: int = 256
    #: Longest input in tokens; longer texts are cut by the engine.
    context: int = 2_048
    #: Prompt tokens that may be in the engine before their first output token: about twice its chunk; 0 is any number.
    prefill_tokens: int = 0
    #: Tokens of context the engine can keep in memory at once, prompts and outputs; 0 is any number.
    kv_tokens: int = 0


class EngineInfo(Record):
    """An engine as selectors and decision records see it."""

    id: str
    model: str
    backend: str
    kinds: tuple[Kind, ...]
    capacity: Capacity
    #: Digest that identifies the weights and settings; enters reuse keys.
    identity: str
    #: Vector dimension of an embedder, or 0.
    dimension: int = 0
    #: What an hour of it costs, in any unit that is the same for every engine of the deployment.
    price: float = 1.0


class Occupancy(Record):
    """What an engine says that it holds in all, whoever asked for it."""

    #: Running or waiting inside it.
    requests: int
    #: Tokens of context in its memory; 0 where it does not say.
    kv_tokens: int = 0


class QueueLimits(Record):
    """How much of a pool's work may wait; 0 and None are without bound."""

    requests: int = 0
    #: UTF-8 bytes of what the waiting requests carry.
    bytes: int = 0
    #: Nanoseconds a request waits for its first dispatch before it is shed.
    wait: int | None = None


class PoolSpec(Record):
    """The engines that may serve one model, and how many of them run."""

    lane: Lane
    #: The name shown for it.
    model: str = ""
    #: Engines that can be opened; the driver knows each by its number.
    members: int = 1
    #: Of these numbers, the ones taken out of service: they are drained and not opened again.
    closed: tuple[int, ...] = ()
    #: Engines kept open even when nothing is asked of them.
    min: int = 0
    #: Nanoseconds without work after which an engine above `min` closes; None is never.
    idle: int | None = None
    #: Engine-seconds that may wait for each open engine before another one is opened.
    grow: float = 5.0
    queue: QueueLimits = QueueLimits()
    #: Scheduler of its requests; empty means the deployment's.
    policy: str = ""


class Caller(Record):
    """Who a request is for: filled by the client, read by the classifier and the decision log."""

    tenant: str = "local"
    run: str = ""
    step: str = ""
    #: Identifies the process that called (a worker's incarnation).
    worker: str = ""
    service_class: ServiceClass = "standard"
    #: Nanoseconds left until the caller's deadline at sending time; None means none.
    remaining: int | None = None
    #: Nanoseconds to the first token, and between tokens, that the caller asks for; None means none.
    ttft: int | None = None
    tpot: int | None = None
    #: Larger goes first under the policies that look at it.
    priority: int = 0
    #: What its output length is learnt by, besides tenant and model.
    route: str = ""


class Request(Record):
    """One inference call as it enters the control plane."""

    id: str
    kind: Kind
    model: str
    caller: Caller = Caller()
    #: embed: texts; rerank: query first, documents after; generate: nothing (see `messages`).
    texts: tuple[str, ...] = ()
    #: generate: chat messages ``{"role", "content"}``.
    messages: tuple[dict[str, str], ...] = ()
    max_tokens: int = 256
    temperature: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    #: JSON Schema the generated text must satisfy, or None.
    schema: dict[str, Any] | None = None
    #: generate: a text to be continued as it is, in place of messages.
    prompt: str = ""
    #: The client's own request for an engine that speaks the same protocol: the path, and the JSON body unchanged.
    path: str = ""
    body: bytes = b""
    #: generate: the answer is wanted as a whole, so that nobody may see its first token.
    whole: bool = False


class Chunk(Record):
    """A piece of an engine's own answer, to be passed on unchanged; the first carries the HTTP status."""

    data: bytes = b""
    status: int = 200
    content_type: str = "application/json"
    #: Output tokens in it, as far as they can be counted without parsing it.
    tokens: int = 0
    #: Totals, known with the last piece; 0 where the engine does not say.
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class Token(Record):
    """One piece of a generated stream; the last carries `finish` and the token counts."""

    text: str = ""
    finish: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


# ---------------------------------------------------------------- scheduling


class Work(Record):
    """What a scheduler orders: a request or a job, without its payload."""

    id: str
    lane: Lane
    kind: str
    #: Integer ns; database epoch for jobs, monotonic for requests.
    arrival: int
    #: Same clock as `arrival`; None means no deadline. Of a stream it is that of the first token.
    deadline: int | None = None
    #: Nanoseconds between output tokens that the caller asks for.
    tpot: int | None = None
    tenant: str = "local"
    service_class: ServiceClass = "standard"
    priority: int = 0
    #: Estimated input and output tokens (output 0 for embeddings).
    tokens_in: int = 0
    tokens_out: int = 0
    #: Rows in this work: texts of an embedding slice, else 1.
    rows: int = 1
    #: Predicted engine-seconds on the lane's reference engine.
    cost: float = 0.0
    #: Digests of the blocks its prompt begins with, each covering all before it.
    prefix: tuple[int, ...] = ()


class Place(Record, gc=False):
    """Somewhere a work may go now: an engine with a free credit, or an open embedding batch on one."""

    engine: str
    #: Requests the engine already holds.
    running: int = 0
    #: Predicted engine-seconds of what it already holds.
    load: float = 0.0
    #: Open batch: its id and what is left of its budget in padded tokens; 0 where the place is not a batch.
    batch: int = 0
    room_tokens: int = 0
    #: Prompt tokens in the engine whose first output token has not come.
    prefill: int = 0
    #: Tokens of context reserved for what it holds.
    context: int = 0
    #: Seconds between output tokens, as observed of late; 0 where nothing is.
    itl: float = 0.0
    #: The tightest `Work.tpot` of what it holds, in seconds; 0 where nothing has one.
    tpot: float = 0.0
    #: The engine's price an hour.
    price: float = 1.0
    #: Works the engine takes at once, those it holds included; 0 where that is not known.
    seats: int = 0


class Queued(Record, tag="queued"):
    """Verdict: the work waits."""


class Rejected(Record, tag="rejected"):
    """Verdict: the work is refused; `retry_after` in seconds, None means never."""

    reason: str
    retry_after: float | None = None


Verdict = Queued | Rejected


class Dispatch(Record, tag="dispatch"):
    """Decision: send this work there."""

    work: Work
    place: Place
    #: What a reader of the decision log should know about it.
    why: str = ""


class Shed(Record, tag="shed"):
    """Decision: give this queued work up."""

    work: Work
    reason: str
    retry_after: float | None = None


class Idle(Record, tag="idle"):
    """Decision: nothing to do before `until` (ns on the request clock), or before the next event when None."""

    until: int | None = None


Decision = Dispatch | Shed | Idle


class Finished(Record, tag="finished"):
    """Event: a dispatched work ended; what it really took."""

    work: Work
    engine: str
    tokens_in: int = 0
    tokens_out: int = 0
    #: Of `tokens_in`, those the engine had computed before.
    cached: int = 0
    #: Seconds in the engine.
    seconds: float = 0.0
    ok: bool = True


class First(Record, tag="first"):
    """Event: a dispatched work produced its first token."""

    work: Work
    engine: str
    #: Since its dispatch.
    seconds: float = 0.0


class Progress(Record, tag="progress"):
    """Event: an engine's inter-token latency, in seconds."""

    engine: str
    itl: float


class Withdrawn(Record, tag="withdrawn"):
    """Event: the caller cancelled a queued work; it must not be dispatched any more."""

    work: Work


class EngineUp(Record, tag="engine_up"):
    """Event: an engine joined a lane."""

    engine: str
    lane: Lane


class EngineDown(Record, tag="engine_down"):
    """Event: an engine left; its works come back as new submissions or failures."""

    engine: str
    lane: Lane


Event = Finished | First | Progress | Withdrawn | EngineUp | EngineDown


# ---------------------------------------------------------------- nodes


class Node(Record):
    """A machine or a slice of one: what it has, and what is in use."""

    name: str
    cpu: float = 1.0
    #: Bytes.
    memory: int = 0
    gpu: int = 0
    #: Bytes of each GPU; 0 is not known.
    gpu_memory: int = 0
    labels: tuple[str, ...] = ()
    used_cpu: float = 0.0
    used_memory: int = 0
    used_gpu: int = 0
    #: Models already loaded there.
    models: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """How much of its scarcest resource is in use, 1 being all."""
        pairs = (self.used_cpu, self.cpu), (self.used_memory, self.memory), (self.used_gpu, self.gpu)
        return max((used / whole for used, whole in pairs if whole), default=0.0)


class Needs(Record):
    """What a job or an engine asks of a node."""

    cpu: float = 0.0
    #: Bytes.
    memory: int = 0
    gpu: int = 0
    #: Bytes that each of its GPUs has at least.
    gpu_memory: int = 0
    labels: tuple[str, ...] = ()
    model: str = ""


class Candidate(Record):
    """What selectors compare: an engine's place or a node, under one name."""

    id: str
    running: int = 0
    load: float = 0.0
    node: Node | None = None
    place: Place | None = None
    #: Share of what the work will use that is there: loaded models, what it reads; in [0, 1].
    local: float = 0.0


# ---------------------------------------------------------------- runs and jobs


class Run(Record):
    """One execution of a workflow, as the store keeps it."""

    id: str
    workflow: str
    status: RunStatus
    #: ISO 8601, UTC.
    created_at: str
    finished_at: str | None = None
    #: Counts the times the run was started or resumed; 1 is the first.
    session: int = 1
    error: str = ""


class Job(Record):
    """The durable unit: one stage of a run × one partition, as a claim returns it."""

    id: int
    run_id: str
    stage: str
    #: Partition's ordinal within its stage; 0 for a job that is not partitioned.
    part: int
    state: JobState
    #: Names this attempt; grows by one with every claim and never shrinks.
    fence: int
    attempt: int
    max_attempts: int
    #: First and last-plus-one row of the opener's table this partition holds; (0, 0) for unpartitioned jobs.
    start: int = 0
    stop: int = 0


class StepTime(Record):
    """What one step did in one attempt at a job."""

    name: str
    seconds: float = 0.0
    rows_in: int = 0
    rows_out: int = 0
    #: Rows that failed and were skipped.
    failed: int = 0


class Attempt(Record):
    """An attempt at a job that has ended, as the process that made it tells it."""

    job: int
    run: str
    workflow: str
    #: Which start of the run it belongs to; 1 is the first.
    session: int
    stage: str
    part: int
    #: The steps of the stage in the order they ran; empty for an attempt that gave no result.
    steps: tuple[StepTime, ...] = ()
    queue: str = "default"
    fence: int
    #: How often the job was tried, this time included.
    attempt: int
    worker: str
    node: str = ""
    #: ``stale``: the job was somebody else's by then, and what the attempt did is dropped.
    outcome: Literal["done", "failed", "retried", "given_back", "stale"]
    error: str = ""
    #: Epoch ns of this machine's clock.
    started_at: int
    finished_at: int


class RowFailure(Record):
    """One row that failed and was skipped: part of its job's result, so a reused result reports it again."""

    step: str
    row: str
    kind: str
    message: str
