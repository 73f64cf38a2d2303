"""`FakeBackend`: engines without weights, deterministic, with settable speed and faults; passes the same contracts.

The module is a plugin: ``Host({"fake": sage_core.testing.engines})`` serves models with ``backend = "fake"``.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from sage_core.common.errors import AttemptFailed, ModelError
from sage_core.common.hookspecs import hookimpl
from sage_core.common.records import Capacity, Chunk, Kind, ModelSpec, Request, Token
from sage_core.testing.openai_answers import Asked, answer_of, failure_of, pieces_of

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
    #: Requests and batches that are worked on together; more wait in the engine.
    sequences: int = 1
    batch_tokens: int = 16_384
    batch_rows: int = 256
    context: int = 2_048
    prefill_tokens: int = 0
    kv_tokens: int = 0
    #: Seconds to open the engine, and how many of a model's openings fail before one does not.
    open_seconds: float = 0.0
    open_fails: int = 0
    #: Seconds for each batch and for each text in it.
    batch_seconds: float = 0.0
    row_seconds: float = 0.0
    #: Seconds to the first token, those for each word of the prompt beside, and tokens a second after it; 0 is at once.
    ttft: float = 0.0
    prompt_seconds: float = 0.0
    tokens_per_second: float = 0.0
    #: Share by which each further request in the engine slows all of them down.
    slowdown: float = 0.0
    #: What is written: the prompt again, or words drawn from it.
    text: str = "echo"
    #: The first so many attempts fail, and every k-th; another engine may do better. 0 is none.
    fail_first: int = 0
    fail_every: int = 0
    #: Seconds for which a failed attempt asks to be left alone.
    pause: float = 0.0
    #: Texts that contain this make their attempt fail, and another engine may do better.
    flaky: str = ""
    #: Texts that contain this make their call fail with an error that is not SAGE's.
    poison: str = ""
    #: Texts that contain this end the engine's own task, and their call never returns.
    deadly: str = ""
    #: Calls with texts that contain this never return.
    hang: str = ""
    #: Tokens that a stream writes before one of the four above takes effect.
    after: int = 0
    #: Texts that contain this are answered with something that is no answer.
    garbage: str = ""
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

    def __init__(self) -> None:
        self._openings: Counter[str] = Counter()

    @asynccontextmanager
    async def open(self, model: ModelSpec) -> AsyncIterator[FakeEngine]:
        options = _options(model)
        self.identify(model)
        await asyncio.sleep(options.open_seconds)
        self._openings[model.name] += 1
        if options.broken:
            raise ModelError(model.name, options.broken, "remove the option broken")
        if self._openings[model.name] <= options.open_fails:
            raise ModelError(model.name, f"opening {self._openings[model.name]} of {options.open_fails} that fail")
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
        #: Bodies that were forwarded, in order.
        self.bodies: list[bytes] = []
        #: Calls that were closed before their end: the request's id (empty for a batch) and the tokens it had written.
        self.cancels: list[tuple[str, int]] = []
        #: Requests and batches begun, and those in the engine now.
        self.attempts = 0
        self.running = 0
        self._killed = asyncio.Event()
        self._seats = asyncio.Semaphore(options.sequences)

    @property
    def cancelled(self) -> int:
        """How many calls were closed before their end."""
        return len(self.cancels)

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
            prefill_tokens=options.prefill_tokens,
            kv_tokens=options.kv_tokens,
        )

    @property
    def dimension(self) -> int:
        return self.options.dimension

    async def embed(self, texts: Sequence[str]) -> Floats:
        self.batches.append(tuple(texts))
        self.note(f"batch {len(texts)}")
        async with self._seat("") as call:
            await self._spend(self.options.batch_seconds + self.options.row_seconds * len(texts))
            await self._taste(texts)
            call.ended = True
        rows = _vectors(texts, self.options.dimension)
        return rows[:, 1:] if self._finds(self.options.garbage, texts) else rows

    async def generate(self, request: Request) -> AsyncIterator[Token]:
        prompt = request.prompt or " ".join(message.get("content", "") for message in request.messages)
        words = _WORD.findall(prompt) or ["…"]
        pieces = self._compose(words, request)
        gap = 1 / self.options.tokens_per_second if self.options.tokens_per_second else 0.0
        async with self._seat(request.id) as call:
            await self._spend(self.options.ttft + self.options.prompt_seconds * len(words))
            for piece in pieces:
                if call.tokens == self.options.after:
                    await self._taste([prompt])
                call.tokens += 1
                yield Token(text=piece)
                await self._spend(gap)
            if call.tokens <= self.options.after:
                await self._taste([prompt])
            call.ended = True
            finish = "length" if len(pieces) == request.max_tokens else "stop"
            finish = "" if self._finds(self.options.garbage, [prompt]) else finish
            yield Token(finish=finish, prompt_tokens=len(words), completion_tokens=len(pieces))

    async def rerank(self, query: str, documents: Sequence[str]) -> list[float]:
        async with self._seat("") as call:
            await self._taste([query, *documents])
            call.ended = True
        asked = set(query.lower().split())
        scores = [len(asked & set(text.lower().split())) / (1 + len(asked)) for text in documents]
        return scores[1:] if self._finds(self.options.garbage, [query, *documents]) else scores

    async def tokenize(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        return [[match.span() for match in _WORD.finditer(text)] for text in texts]

    async def forward(self, request: Request) -> AsyncIterator[Chunk]:
        """Answer OpenAI's JSON: chat, completions, embeddings and rerank; what is none of these is a 400 or 404."""
        self.bodies.append(request.body)
        asked = Asked.read(request.path, request.body)
        if isinstance(asked, Chunk):
            yield asked
        elif asked.kind == "embed":
            yield answer_of(asked, await self.embed(asked.texts))
        elif asked.kind == "rerank":
            yield answer_of(asked, await self.rerank(asked.query, asked.documents))
        else:
            tokens: list[Token] = []
            async with aclosing(self.generate(asked.request(request))) as stream:  # type: ignore[type-var]
                async for token in stream:
                    if not asked.stream:
                        tokens.append(token)
                    elif token.text or token.finish:
                        yield pieces_of(asked, token, first=not tokens)
                        tokens = [token]
            if self._finds(self.options.garbage, [asked.prompt_text]):
                yield failure_of()
            elif not asked.stream:
                yield answer_of(asked, tokens)

    def note(self, line: str) -> None:
        """Append to the journal, where there is one."""
        if self.options.journal:
            with open(self.options.journal, "a", encoding="utf-8") as file:
                file.write(f"{self.model} {line}\n")

    @asynccontextmanager
    async def _seat(self, request: str) -> AsyncIterator[_Call]:
        call = _Call()
        self.attempts += 1
        options = self.options
        try:
            nth = options.fail_every and self.attempts % options.fail_every == 0
            if self.attempts <= options.fail_first or nth:
                call.ended = True
                raise AttemptFailed(self.model, f"attempt {self.attempts} failed", options.pause)
            async with self._seats:
                self.running += 1
                try:
                    yield call
                except Exception:
                    call.ended = True
                    raise
                finally:
                    self.running -= 1
        finally:
            if not call.ended:
                self.cancels.append((request, call.tokens))
                self.note("cancelled")
            elif request:
                self.note("end")

    async def _spend(self, seconds: float) -> None:
        await asyncio.sleep(seconds * (1 + self.options.slowdown * (self.running - 1)))

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
        options = self.options
        if self._finds(options.deadly, texts):
            self._killed.set()
            await asyncio.Event().wait()
        if self._finds(options.hang, texts):
            await asyncio.Event().wait()
        if self._finds(options.flaky, texts):
            raise AttemptFailed(self.model, f"no taste for {options.flaky!r}", options.pause)
        if self._finds(options.poison, texts):
            raise ValueError(f"cannot swallow {options.poison!r}")

    def _finds(self, mark: str, texts: Sequence[str]) -> bool:
        return bool(mark) and any(mark in text for text in texts)


class _Call:
    """A call in the engine."""

    def __init__(self) -> None:
        self.tokens = 0
        self.ended = False


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
