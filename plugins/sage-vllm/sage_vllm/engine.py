"""The engine: sage-openai's, spoken to a server of ours, with what vLLM says of itself beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress

import msgspec
from sage_openai.engine import OpenAIEngine
from sage_openai.options import Options as ServerOptions
from sage_openai.server import Server

from sage_core import Capacity, Chunk, ModelError, ModelSpec, Occupancy, Request, log
from sage_vllm.figures import Limits, read_figures, read_limits
from sage_vllm.options import Options
from sage_vllm.process import VllmProcess, fetch


class VllmEngine(OpenAIEngine):
    """A vLLM server as an engine; implements `Shared`.

    Args:
        process: the server, where it is SAGE's own.
        limits: what it can hold.
        every: seconds between two looks at its figures; 0 never looks.

    `figures` is for those who look. Decisions depend on them where others use the server too, and nowhere else.
    """

    def __init__(
        self,
        spec: ModelSpec,
        options: ServerOptions,
        server: Server,
        process: VllmProcess | None,
        limits: Limits,
        every: float,
    ) -> None:
        super().__init__(spec, options, server)
        self.process = process
        self._limits = limits
        self._every = every
        #: Nobody else has the key of a server of our own; of texts, one request of ours is many of the server's.
        self._shared = process is None and options.kinds == ("generate",)
        self._looked = asyncio.Event()
        #: Answers beyond the first that requests of ours ask for, each a request of the server's: now, and the most
        #: since the last look.
        self._more = self._most = 0
        self.figures: Mapping[str, float] = {}

    def forward(self, request: Request) -> AsyncGenerator[Chunk]:
        more = copies(request) - 1 if self._shared else 0
        return self._many(request, more) if more else super().forward(request)

    async def _many(self, request: Request, more: int) -> AsyncGenerator[Chunk]:
        self._more += more
        self._most = max(self._most, self._more)
        try:
            async with aclosing(super().forward(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self._more -= more

    async def watch(self) -> None:
        """Look after the process and the server; raises `ModelError` when either is gone."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(super().watch())
                if self.process is not None:
                    tasks.create_task(self.process.died())
                tasks.create_task(self._read_figures())
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    async def occupancies(self) -> AsyncIterator[Occupancy]:
        while self._shared:
            await self._looked.wait()
            self._looked.clear()
            held = round(self.figures.get("running", 0.0) + self.figures.get("waiting", 0.0))
            tokens = round(self.figures.get("kv_usage", 0.0) * self._limits.kv_tokens)
            ours, self._most = self._most, self._more
            yield Occupancy(requests=max(0, held - ours), kv_tokens=tokens)

    async def _read_figures(self) -> None:
        """Now and then; says when more was sent to the server than it could hold."""
        options, preempted = self._options, 0.0
        while self._every:
            await asyncio.sleep(self._every)
            with suppress(ModelError):
                text = await fetch(self._name, metrics_of(options.base_url), options.api_key)
                self.figures = {**read_figures(text), "at": time.time()}
                self._looked.set()
            if self.figures.get("preemptions", 0.0) > preempted:
                preempted = self.figures["preemptions"]
                log("vllm_preempts", model=self._name, url=options.base_url, figures=dict(self.figures))


class _Asked(msgspec.Struct):
    n: int | None = None
    prompt: msgspec.Raw = msgspec.Raw(b'""')


_ASKED = msgspec.json.Decoder(_Asked)


def copies(request: Request) -> int:
    """How many answers a client's request asks for: vLLM counts each as a request of its own."""
    try:
        asked = _ASKED.decode(request.body)
        prompts = msgspec.json.decode(asked.prompt)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # The server will refuse it.
        return 1
    # A list of numbers is one prompt, whose tokens they are.
    several = len(prompts) if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int) else 1
    return several * max(1, asked.n or 1)


async def ask_limits(name: str, url: str, key: str) -> Limits:
    """What a server can hold, as far as it says: whoever runs it may show its figures to nobody."""
    try:
        return read_limits(await fetch(name, metrics_of(url), key))
    except ModelError:
        return Limits()


def metrics_of(url: str) -> str:
    """Where a server tells its figures: beside ``/v1``."""
    return url.rstrip("/").removesuffix("/v1") + "/metrics"


def server_options(spec: ModelSpec, options: Options, url: str, key: str, capacity: Capacity) -> ServerOptions:
    """What sage-openai is told about a server."""
    pooling = options.kinds != ("generate",)
    # vLLM refuses a text that is too long for an embedder unless it is told to cut it.
    cut = {"truncate_prompt_tokens": -1} if pooling else {}
    return ServerOptions(
        base_url=url,
        model=options.model or spec.name,
        api_key=key,
        kinds=options.kinds,
        sequences=capacity.sequences,
        context=options.context,
        prefill_tokens=capacity.prefill_tokens,
        kv_tokens=capacity.kv_tokens,
        batch_tokens=options.batch_tokens,
        batch_rows=options.batch_rows,
        price=options.price,
        timeout=options.timeout,
        stall=options.stall,
        health=options.health,
        extra={**cut, **options.extra},
    )


def capacity_of(options: Options, sequences: int, limits: Limits) -> Capacity:
    """Credits of an engine: as many prompt tokens as two of its steps read, and what its cache holds for certain."""
    return Capacity(
        sequences=sequences,
        prefill_tokens=2 * options.chunk,
        kv_tokens=limits.usable(sequences, options.context or 1),
    )
