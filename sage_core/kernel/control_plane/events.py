"""What goes into the manager and what comes out of it: payload-free, so that a recording holds no prompt."""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

import msgspec

from sage_core.common.config import ClassConfig
from sage_core.common.records import (
    Caller,
    EngineInfo,
    Kind,
    Lane,
    ModelSpec,
    Occupancy,
    Place,
    PoolSpec,
    Record,
    Request,
    ServiceClass,
)

#: ``rejected``: not taken in; ``shed``: taken in and given up later, both under load; ``unavailable``: no engine.
Outcome = Literal["done", "failed", "cancelled", "rejected", "shed", "unavailable"]

#: Bytes of a prompt that one digest of its prefix covers, and how many are taken.
BLOCK, BLOCKS = 512, 64


class Outline(Record):
    """A request without its texts: all that a decision may depend on."""

    id: str
    kind: Kind
    model: str
    lane: Lane
    caller: Caller
    #: UTF-8 bytes of each row: one per text of an embed request, one in all otherwise, none for "is it loaded?".
    sizes: tuple[int, ...] = ()
    #: Digest of each text of an embed request: equal ones are computed once.
    keys: tuple[str, ...] = ()
    max_tokens: int = 0
    #: Of a generate request: digests of its first blocks, each over all bytes up to its end.
    prefix: tuple[int, ...] = ()
    #: What the request is, where it is scheduled as another kind.
    asked: Kind | None = None
    #: Nobody may see the first token of its answer.
    whole: bool = False


def outline(request: Request, lane: Lane, *, about: bool = False) -> Outline:
    """Describe a request by sizes and digests; one that is only `about` its model has none."""
    sizes, keys, prefix = ((), (), ()) if about else _measured(request)
    # Passed on as it is, it has no rows that could join a batch: like a rerank request, it is one piece of work.
    passed = request.kind == "embed" and bool(request.body)
    return Outline(
        id=request.id,
        kind="rerank" if passed else request.kind,
        asked="embed" if passed else None,
        model=request.model,
        lane=lane,
        caller=request.caller,
        sizes=sizes,
        keys=keys,
        max_tokens=request.max_tokens if request.kind == "generate" else 0,
        prefix=prefix,
        whole=request.whole,
    )


def _measured(request: Request) -> tuple[tuple[int, ...], tuple[str, ...], tuple[int, ...]]:
    if request.kind == "embed" and request.body:
        return (len(request.body),), (), ()
    if request.kind == "embed":
        raw = [text.encode("utf-8", "surrogatepass") for text in request.texts]
        return tuple(map(len, raw)), tuple(blake2b(data, digest_size=16).hexdigest() for data in raw), ()
    if request.kind != "generate":
        return (sum(len(text.encode("utf-8", "surrogatepass")) for text in request.texts),), (), ()
    parts = [request.prompt, *(message.get("content", "") for message in request.messages)]
    whole = "".join(parts).encode("utf-8", "surrogatepass")
    return (len(whole),), (), _prefix(whole)


def _prefix(whole: bytes) -> tuple[int, ...]:
    found = []
    state = blake2b(digest_size=8)
    for start in range(0, min(len(whole) - BLOCK + 1, BLOCK * BLOCKS), BLOCK):
        state.update(whole[start : start + BLOCK])
        found.append(int.from_bytes(state.digest(), "big") >> 1)
    return tuple(found)


def lane_of(spec: ModelSpec) -> Lane:
    """Key of the pool that serves a model: equal for two names of the same source and options."""
    # Without a source the backend finds the weights by the name.
    source = spec.source or {"name": spec.name}
    plain = msgspec.json.encode(
        {"backend": spec.backend, "source": source, "options": spec.options, "needs": spec.needs},
        order="deterministic",
    )
    return f"{spec.backend}/{blake2b(plain, digest_size=6).hexdigest()}"


# ---------------------------------------------------------------- in


class Submitted(Record, tag="submitted"):
    """A request arrived."""

    outline: Outline


class Started(Record, tag="started"):
    """A dispatch produced its first token."""

    ticket: int
    #: Since its dispatch; 0 where that is not known, because the answer came as a whole.
    seconds: float = 0.0


class Completed(Record, tag="completed"):
    """A dispatch ended well; token counts are 0 where the engine does not count."""

    ticket: int
    seconds: float
    tokens_in: int = 0
    tokens_out: int = 0
    #: Of `tokens_in`, those the engine had computed before.
    cached: int = 0


class Broke(Record, tag="broke"):
    """A dispatch ended in an error, or has stopped after `Abort`."""

    ticket: int
    seconds: float
    reason: str
    #: Not the request but the engine is at fault, and it is closed.
    fatal: bool = False
    #: The engine failed this attempt only, and another one may do better.
    again: bool = False
    #: Seconds that the engine asks to be left alone.
    pause: float = 0.0


class Cancelled(Record, tag="cancelled"):
    """The caller of a request has gone."""

    request: str


class EngineOpened(Record, tag="engine_opened"):
    """An engine asked for by `StartEngine` is ready."""

    engine: str
    info: EngineInfo


class EngineLost(Record, tag="engine_lost"):
    """An engine could not be opened, or is gone with what it was working on."""

    engine: str
    reason: str


class Paced(Record, tag="paced"):
    """What an engine's streams showed since the last such event."""

    engine: str
    #: Mean seconds between output tokens.
    itl: float


class Scraped(Record, tag="scraped"):
    """What a shared engine said that it holds."""

    engine: str
    occupancy: Occupancy


class PoolSet(Record, tag="pool_set"):
    """A pool is there, or its settings have changed."""

    pool: PoolSpec


class PoolGone(Record, tag="pool_gone"):
    """A pool is no longer served: what waits in it ends, what runs goes on."""

    lane: Lane


class PolicySet(Record, tag="policy_set"):
    """Another scheduler decides from here on; nothing that waits is lost."""

    policy: str
    #: Empty: in every pool that names none of its own.
    lane: Lane = ""


class ClassesSet(Record, tag="classes_set"):
    """What service classes ask for from here on, where a request does not say; what has come already keeps its own."""

    classes: dict[ServiceClass, ClassConfig]


class Drain(Record, tag="drain"):
    """Send an engine nothing more, and close it when it holds nothing."""

    engine: str


class Tick(Record, tag="tick"):
    """The armed timer fired."""


Input = (
    Submitted
    | Started
    | Completed
    | Broke
    | Cancelled
    | EngineOpened
    | EngineLost
    | Paced
    | Scraped
    | PoolSet
    | PoolGone
    | PolicySet
    | ClassesSet
    | Drain
    | Tick
)


class Instant(Record):
    """All inputs of one instant, as recorded and replayed."""

    #: Integer ns on the driver's clock.
    now: int
    inputs: tuple[Input, ...]


# ---------------------------------------------------------------- out


class StartEngine(Record, tag="start_engine"):
    """Open an engine for a lane."""

    engine: str
    lane: Lane
    #: Which of the pool's members it is.
    member: int = 0


class StopEngine(Record, tag="stop_engine"):
    """Close an engine; nothing is sent to it any more."""

    engine: str


class DispatchOne(Record, tag="dispatch_one"):
    """Run one request on an engine."""

    ticket: int
    engine: str
    request: str
    #: Nanoseconds it has waited.
    wait: int = 0


class DispatchBatch(Record, tag="dispatch_batch"):
    """Embed these rows together: request id and index of the text in it."""

    ticket: int
    engine: str
    rows: tuple[tuple[str, int], ...]


class Abort(Record, tag="abort"):
    """Stop a dispatch that nobody waits for; it still ends in `Completed` or `Broke`, which returns its credit."""

    ticket: int


class Fill(Record, tag="fill"):
    """Copy `rows` of a finished batch to the places `at` of a request's answer."""

    request: str
    ticket: int
    rows: tuple[int, ...]
    at: tuple[int, ...]


class End(Record, tag="end"):
    """A request is over: exactly one for each `Submitted`."""

    request: str
    outcome: Outcome
    #: The dispatch that answered or failed it, or 0.
    ticket: int = 0
    #: The engine that could not be opened or was lost, where that is the cause.
    engine: str = ""
    reason: str = ""
    retry_after: float | None = None


class Decided(Record, tag="decided", gc=False):
    """One line of the decision log: a request's part of one dispatch, or its end without one."""

    request: str
    kind: Kind
    model: str
    lane: Lane
    tenant: str
    service_class: str
    run: str
    step: str
    worker: str
    rows: int
    #: Tokens, input and output: as counted where the engine counts, as estimated elsewhere.
    tokens: int
    #: Estimated when it was classified.
    tokens_in: int = 0
    tokens_out: int = 0
    #: As the engine counted, and of those in the ones that it had computed before; 0 where it does not count.
    counted_in: int = 0
    counted_out: int = 0
    cached: int = 0
    priority: int = 0
    #: Nanoseconds from arrival to its deadline (of a stream that of its first token), and between tokens: as asked for,
    #: or its class's; None where there is none.
    deadline: int | None = None
    tpot: int | None = None
    #: Nanoseconds between arrival and dispatch, or the end of a request that was not dispatched.
    wait: int
    engine: str
    batch: int
    #: Seconds of the whole dispatch.
    predicted: float
    actual: float
    #: Engine-seconds that the engine was charged with for it.
    cost: float = 0.0
    #: Nanoseconds between arrival and this line.
    total: int = 0
    outcome: Outcome
    reason: str = ""
    #: Seconds from dispatch to the first token, predicted and observed; 0 where there is none.
    predicted_ttft: float = 0.0
    ttft: float = 0.0
    #: Places that were open to it when it was sent: the chosen one, the best ones beside it, and how many in all.
    candidates: tuple[Place, ...] = ()
    open: int = 0
    #: What the node selector gave each of the candidates; empty where it compared none.
    scores: tuple[float, ...] = ()
    #: Who decided, and what they had to say about it.
    policy: str = ""
    why: str = ""
    #: Engines that failed it before.
    attempts: int = 0


class ArmTimer(Record, tag="arm_timer"):
    """Send `Tick` at this time (ns); None disarms. Replaces the timer armed before."""

    at: int | None


Action = StartEngine | StopEngine | DispatchOne | DispatchBatch | Abort | Fill | End | Decided | ArmTimer
