"""infinity's torch engine in process: ``infinity_texts.py FOLDER THREADS``; speaks as `sage_bench.embedders` does."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any


async def main(folder: str, threads: str) -> None:
    """Embed one order after another: so many clients, each with a request of so many texts at a time."""
    import torch  # type: ignore[import-not-found]  # noqa: PLC0415 - it reads the environment that is set below
    from infinity_emb import AsyncEmbeddingEngine, EngineArgs  # type: ignore[import-not-found]  # noqa: PLC0415

    torch.set_num_threads(int(threads) or len(os.sched_getaffinity(0)))
    args = EngineArgs(model_name_or_path=folder, engine="torch", device="cpu", dtype="float32", compile=False)
    engine = AsyncEmbeddingEngine.from_args(args)
    async with engine:
        await engine.embed(sentences=["ready"])
        say({})
        while line := await asyncio.to_thread(sys.stdin.readline):
            say(await obey(engine, json.loads(line)))


async def obey(engine: Any, order: dict[str, Any]) -> dict[str, object]:
    """Let the order's clients make one request after another."""
    texts, size = order["texts"], order["request"]
    starts = iter(range(0, len(texts), size))
    found: dict[int, Any] = {}

    async def one() -> None:
        for at in starts:
            found[at] = (await engine.embed(sentences=texts[at : at + size]))[0]

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one() for _ in range(order["clients"])))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"seconds": seconds, "cpu": cpu, "vector": [float(value) for value in found[0][0]]}


def say(answer: dict[str, object]) -> None:
    """Answer a line with a line."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    os.environ.update(
        HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", DO_NOT_TRACK="1", INFINITY_ANONYMOUS_USAGE_STATS="0"
    )
    asyncio.run(main(*sys.argv[1:]))
