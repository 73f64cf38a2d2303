"""`FakeBackend`: engines without weights, deterministic, with settable speed and faults; passes the same contracts.

The module is a plugin: ``Host({"fake": sage_core.testing.engines})`` serves models with ``backend = "fake"``.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from sage_core.common.errors import ModelError
from sage_core.common.hookspecs import hookimpl
from sage_core.common.records import Capacity, Kind, ModelSpec, Request, Token

if TYPE_CHECKING:
    import numpy.typing

    Floats = numpy.typing.NDArray[numpy.float32]

_WORD = re.compile(r"\S+")


@hookimpl
def sage_backends() -> Mapping[str, str]:
    """The backend ``fake``."""
    return {"fake": f"{__name__}:FakeBackend"}


class FakeOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a ``backend = "fake"`` model."""

    #: What it serves.
    kinds: tuple[Kind, ...] = ("embed", "generate", "rerank", "tokenize")
    dimension: int = 16
    sequences: int = 1
    batch_tokens: int = 16_384
    batch_rows: int = 256
    context: int = 2_048
    #: Seconds to open the engine.
    open_seconds: float = 0.0
    #: Seconds for each batch and for each text in it.
    batch_seconds: float = 0.0
    row_seconds: float = 0.0
    #: Seconds to the first token, and tokens a second after it; 0 means at once.
    ttft: float = 0.0
    tokens_per_second: float = 0.0
    #: What is written: the prompt again, or words drawn from it.
    text: str = "echo"
    #: Texts that contain this make their call fail with an error that is not SAGE's.
    poison: str = ""
    #: Texts that contain this end the engine's own task, and their call never returns.
    deadly: str = ""
    #: The engine cannot be opened, with this reason.
    broken: str = ""
    #: File to which a line is appended for each engine opened and each batch, to be read by tests in other processes.
    journal: str = ""


class FakeBackend:
    """Runs models that need no weights; ``source = "missing"`` is one that was never fetched."""

    def identify(self, model: ModelSpec) -> str:
        _options(model)
        if model.source == "missing":
            raise ModelError(model.name, "its weights are not there", "leave source empty: a fake model needs none")
        plain = msgspec.json.encode([model.source, model.options], order="deterministic")
        return "fake:" + blake2b(plain, digest_size=16).hexdigest()

    @asynccontextmanager
    async def open(self, model: ModelSpec) -> AsyncIterator[FakeEngine]:
        options = _options(model)
        self.identify(model)
        await asyncio.sleep(options.open_seconds)
        if options.broken:
            raise ModelError(model.name, options.broken, "remove the option broken")
        engine = FakeEngine(model.name, options)
        engine.note("open")
        try:
            async with asyncio.TaskGroup() as tasks:
                heart = tasks.create_task(engine.beat())
                yield engine
                heart.cancel()
        finally:
            engine.note("close")


class FakeEngine:
    """Answers every kind of request; a text's vector is seeded by its digest and thus cannot depend on its batch."""

    def __init__(self, model: str, options: FakeOptions) -> None:
        self.model = model
        self.options = options
        #: Texts of each batch, in order.
        self.batches: list[tuple[str, ...]] = []
        #: Streams that were closed before their end.
        self.cancelled = 0
        self._killed = asyncio.Event()

    async def beat(self) -> None:
        """Run until something deadly has been swallowed."""
        await self._killed.wait()
        raise RuntimeError(f"died of {self.options.deadly!r}")

    @property
    def kinds(self) -> tuple[Kind, ...]:
        return self.options.kinds

    @property
    def capacity(self) -> Capacity:
        options = self.options
        return Capacity(
            sequences=options.sequences,
            batch_tokens=options.batch_tokens,
            batch_rows=options.batch_rows,
            context=options.context,
        )

    @property
    def dimension(self) -> int:
        return self.options.dimension

    async def embed(self, texts: Sequence[str]) -> Floats:
        self.batches.append(tuple(texts))
        self.note(f"batch {len(texts)}")
        await asyncio.sleep(self.options.batch_seconds + self.options.row_seconds * len(texts))
        await self._taste(texts)
        return _vectors(texts, self.options.dimension)

    async def generate(self, request: Request) -> AsyncIterator[Token]:
        prompt = " ".join(message.get("content", "") for message in request.messages)
        await self._taste([prompt])
        words = _WORD.findall(prompt) or ["…"]
        pieces = self._compose(words, request)
        gap = 1 / self.options.tokens_per_second if self.options.tokens_per_second else 0.0
        ended = False
        try:
            await asyncio.sleep(self.options.ttft)
            for piece in pieces:
                yield Token(text=piece)
                await asyncio.sleep(gap)
            ended = True
            finish = "length" if len(pieces) == request.max_tokens else "stop"
            yield Token(finish=finish, prompt_tokens=len(words), completion_tokens=len(pieces))
        finally:
            self.cancelled += not ended
            self.note("end" if ended else "cancelled")

    async def rerank(self, query: str, documents: Sequence[str]) -> list[float]:
        await self._taste([query, *documents])
        asked = set(query.lower().split())
        return [len(asked & set(text.lower().split())) / (1 + len(asked)) for text in documents]

    async def tokenize(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        return [[match.span() for match in _WORD.finditer(text)] for text in texts]

    def note(self, line: str) -> None:
        """Append to the journal, where there is one."""
        if self.options.journal:
            with open(self.options.journal, "a", encoding="utf-8") as file:
                file.write(f"{self.model} {line}\n")

    def _compose(self, words: Sequence[str], request: Request) -> list[str]:
        if self.options.text == "echo":
            chosen = list(words[: request.max_tokens])
        else:
            rng = random.Random(f"{words}{request.seed}")
            chosen = [rng.choice(words) for _ in range(request.max_tokens)]
        answer = " ".join(chosen)
        for stop in request.stop:
            answer = answer.split(stop, 1)[0] if stop else answer
        return re.findall(r"\s*\S+|\s+$", answer)

    async def _taste(self, texts: Sequence[str]) -> None:
        if self.options.deadly and any(self.options.deadly in text for text in texts):
            self._killed.set()
            await asyncio.Event().wait()
        if self.options.poison and any(self.options.poison in text for text in texts):
            raise ValueError(f"cannot swallow {self.options.poison!r}")


def _options(model: ModelSpec) -> FakeOptions:
    try:
        return msgspec.convert(dict[str, Any](model.options), FakeOptions)
    except msgspec.ValidationError as error:
        raise ModelError(model.name, f"options of the fake backend: {error}") from None


def _vectors(texts: Sequence[str], dimension: int) -> Floats:
    import numpy  # noqa: PLC0415 - importing the fakes must not cost what they do not use

    rows = numpy.empty((len(texts), dimension), numpy.float32)
    for row, text in zip(rows, texts, strict=True):
        seed = int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
        row[:] = numpy.random.default_rng(seed).standard_normal(dimension)
        row /= numpy.linalg.norm(row)
    return rows
