"""The Protocols a plugin implements: one to three methods each, with purity, range and failure stated.

Every one has a contract suite in `sage_core.testing` that an implementation passes by subclassing it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import tzinfo
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from sage_core.common.records import (
    Candidate,
    Capacity,
    Chunk,
    Decision,
    EngineInfo,
    Event,
    Kind,
    Lane,
    ModelSpec,
    Needs,
    Occupancy,
    Place,
    Request,
    Token,
    Verdict,
    Work,
)

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    Floats = numpy.typing.NDArray[numpy.float32]

# ---------------------------------------------------------------- ordering and scheduling


@runtime_checkable
class Ordering(Protocol):
    """Orders works by a key fixed when they are enqueued: for job queues and, through KeyedScheduler, for requests."""

    def rank(self, work: Work) -> float:
        """Return the work's place: smaller goes first. Pure and finite; aging is arrival minus a head start."""


class Fleet(Protocol):
    """Read-only view of the engines; the manager owns the ledger of credits behind it."""

    def room(self, lane: Lane) -> bool:
        """Whether anything of this lane can be released at all. O(1)."""

    def open(self, work: Work) -> Iterable[Place]:
        """Places that fit this work now, from an index: engines with a credit, open batches with room."""

    def pick(self, work: Work, places: Iterable[Place] | None = None) -> Place | None:
        """Run the configured selector chain over `places` (default: all open ones); None when none fits."""

    def cost(self, work: Work, place: Place | None = None) -> float:
        """Predicted engine-seconds there; None = on the lane's reference engine."""

    def ttft(self, work: Work, place: Place) -> float:
        """Predicted seconds from a dispatch there to the first token, behind what the engine holds."""
        ...

    def tpot(self, work: Work, place: Place) -> float:
        """Predicted seconds between its output tokens there, with this work in the batch."""
        ...

    def cached(self, work: Work, place: Place) -> int:
        """Tokens of its prompt that the engine has computed before, as far as dispatches tell."""
        ...

    def drain(self, lane: Lane) -> float:
        """Engine-seconds of work that the lane finishes each second, of late; 0 before anything is known."""
        ...


@runtime_checkable
class Scheduler(Protocol):
    """Decides which request goes next, and when. No I/O, no threads, no clock or randomness of its own.

    `now` is integer ns and is passed in, as is the seed. The manager owns queued work and credits and refuses a
    double dispatch, an unknown place and a lost work; a policy may be stricter, never looser.
    """

    def submit(self, work: Work, fleet: Fleet, now: int) -> Verdict:
        """Take a work, or reject it with a reason. Every queued work is dispatched, shed or withdrawn later."""

    def next(self, fleet: Fleet, now: int) -> Decision:
        """Return one decision; called until `Idle`. `Idle.until` arms the manager's one timer."""

    def observe(self, event: Event, now: int) -> None:
        """Learn what happened. A withdrawn work must not be dispatched afterwards."""


# ---------------------------------------------------------------- selection


@runtime_checkable
class NodeFilter(Protocol):
    """Rules out places a work cannot use."""

    def admits(self, work: Work, needs: Needs, candidate: Candidate) -> bool:
        """Whether the candidate may be used. Pure."""


@runtime_checkable
class NodeScorer(Protocol):
    """Prefers some places over others; one with ``local = False`` never reads `Candidate.local`, dear to find out."""

    def score(self, work: Work, candidates: Sequence[Candidate]) -> Mapping[str, float]:
        """Scores by candidate id in [0, 1], 1 best; every candidate appears; values outside are clamped. Pure."""


@runtime_checkable
class NodePicker(Protocol):
    """Chooses one of the scored places."""

    def pick(self, work: Work, scores: Mapping[str, float]) -> str:
        """Return an id that is in `scores` (never empty). May keep state; the same calls give the same picks."""


# ---------------------------------------------------------------- triggers


@runtime_checkable
class TriggerKind(Protocol):
    """A way to say when runs start; made once per process from its registry entry without arguments."""

    def next_fire(self, spec: Mapping[str, object], after: int, zone: tzinfo) -> int | None:
        """Return the first fire time later than `after`, both epoch ms; None when none will come.

        Pure: no clock of its own, no state, no randomness, so that any process computes the same times.

        Args:
            spec: the trigger as the workflow declares it; raises `BadValue` for one that says no time.
            zone: where the trigger's wall clock hangs.
        """


# ---------------------------------------------------------------- backends and engines


class Engine(Protocol):
    """A running model. Closing is leaving its context; what it can do is which of the Protocols below it has.

    What a request got wrong is an error of SAGE's; after any other error the engine is closed and another one opened.
    """

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The request kinds this engine serves."""

    @property
    def capacity(self) -> Capacity:
        """What it can hold at once."""

    @property
    def dimension(self) -> int:
        """Vector dimension of an embedder, or 0."""


class Backend(Protocol):
    """A way to run models; made once per process from its registry entry without arguments."""

    def identify(self, model: ModelSpec) -> str:
        """Digest of the weights and settings that decide results, without loading them (a few ms).

        Raises `ModelError` when the weights are not there, saying how to get them.
        """

    def open(self, model: ModelSpec) -> AbstractAsyncContextManager[Engine]:
        """Load the model; leaving the context frees it. Raises `ModelError`."""


@runtime_checkable
class Generates(Protocol):
    """An engine that writes text."""

    def generate(self, request: Request) -> AsyncIterator[Token]:
        """Stream the answer; the last token carries `finish` and counts. Closing the iterator cancels the work."""


@runtime_checkable
class Forwards(Protocol):
    """An engine that speaks OpenAI's HTTP: a client's request reaches it, and its answer the client, unchanged."""

    def forward(self, request: Request) -> AsyncIterator[Chunk]:
        """Send ``request.body`` to ``request.path``; the first chunk carries the status. Closing cancels the work.

        Raises `AttemptFailed` where another engine may do better, before the first chunk or after it.
        """
        ...


@runtime_checkable
class Embeds(Protocol):
    """An engine that turns texts into vectors."""

    async def embed(self, texts: Sequence[str]) -> Floats:
        """Return float32 of shape ``(len(texts), dimension)``, L2-normalised. A row does not depend on its batch."""


@runtime_checkable
class Reranks(Protocol):
    """An engine that scores documents against a query."""

    async def rerank(self, query: str, documents: Sequence[str]) -> list[float]:
        """Return one score per document, in order; larger is more relevant."""


@runtime_checkable
class Tokenizes(Protocol):
    """An engine that can say where its tokens lie in a text."""

    async def tokenize(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Character spans ``[start, end)`` of each text's tokens, without special ones and without truncation."""


@runtime_checkable
class Watched(Protocol):
    """An engine outside this process that may die while nothing is asked of it."""

    async def watch(self) -> None:
        """Return or raise when the engine is gone; its requests then go to another. Cancelled when it is closed."""


@runtime_checkable
class Shared(Protocol):
    """A `Watched` engine that others may use too, past this control plane."""

    def occupancies(self) -> AsyncIterator[Occupancy]:
        """Tell now and then what the engine holds; what is not ours takes room. Closed with the engine."""
        ...


# ---------------------------------------------------------------- the client a step sees


class InferenceClient(Protocol):
    """The one way from a step to a model; implemented by `UnifiedInferenceClient`."""

    async def embed(self, model: str, texts: Sequence[str]) -> Floats:
        """Float32 of shape ``(len(texts), dimension)``, L2-normalised."""

    def generate(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int | None = None,
        schema: Mapping[str, object] | None = None,
    ) -> AsyncIterator[Token]:
        """Stream an answer; closing the iterator cancels it everywhere."""

    async def rerank(self, model: str, query: str, documents: Sequence[str]) -> list[float]:
        """One score per document, in order; larger is more relevant."""

    async def tokenize(self, model: str, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Character spans of each text's tokens under the model's tokenizer."""

    async def info(self, model: str) -> EngineInfo:
        """What serves the model; loads it if nothing does yet."""
