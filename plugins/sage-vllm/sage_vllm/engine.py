"""The engine: sage-openai's, spoken to a server of ours, with what vLLM says of itself beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress

from sage_openai.engine import OpenAIEngine
from sage_openai.options import Options as ServerOptions
from sage_openai.server import Server

from sage_core import Capacity, ModelError, ModelSpec, log
from sage_vllm.figures import Limits, read_figures
from sage_vllm.options import Options
from sage_vllm.process import VllmProcess


class VllmEngine(OpenAIEngine):
    """A vLLM server as an engine.

    Args:
        process: the server, where it is SAGE's own.
        every: seconds between two looks at its figures; 0 never looks.

    `figures` is for those who look: no decision depends on it, so that decisions are the same without it.
    """

    def __init__(
        self, spec: ModelSpec, options: ServerOptions, server: Server, process: VllmProcess | None, every: float
    ) -> None:
        super().__init__(spec, options, server)
        self.process = process
        self._every = every
        self.figures: Mapping[str, float] = {}

    async def watch(self) -> None:
        """Look after the process and the server; raises `ModelError` when either is gone."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(super().watch())
                if self.process is not None:
                    tasks.create_task(self.process.died())
                    tasks.create_task(self._read_figures(self.process))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _read_figures(self, process: VllmProcess) -> None:
        """Now and then; says when more was sent to the server than it could hold."""
        preempted = 0.0
        while self._every:
            await asyncio.sleep(self._every)
            with suppress(ModelError):
                self.figures = {**read_figures(await process.get("/metrics")), "at": time.time()}
            if self.figures.get("preemptions", 0.0) > preempted:
                preempted = self.figures["preemptions"]
                log("vllm_preempts", model=process.name, port=process.port, figures=dict(self.figures))


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
