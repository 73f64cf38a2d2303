"""The real embedder behind the control plane: the same vectors whatever the traffic, in full batches.

The packaged weights are all-MiniLM-L6-v2 in 8 bits; SAGE_TEST_MINILM_FP32 names a folder with the float32 export.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Coroutine
from itertools import count
from pathlib import Path
from typing import Any

import numpy
import pytest
import sage_onnx

from sage_core.common.host import Host
from sage_core.common.records import Caller, ModelSpec, Request
from sage_core.kernel.control_plane.driver import Driver
from sage_core.kernel.control_plane.events import Decided
from sage_core.kernel.control_plane.manager import ControlPlaneManager

FP32 = os.environ.get("SAGE_TEST_MINILM_FP32", "")
MODELS = {"packaged int8": ModelSpec(name="minilm", backend="onnx")}
if FP32:
    MODELS["float32"] = ModelSpec(name="fp32", backend="onnx", source=FP32)


def texts(number: int, *, longest: int = 120) -> list[str]:
    """Texts of 1 to `longest` words."""
    chance = random.Random(number)
    words = (Path(__file__).parents[2] / "docs" / "glossary.md").read_text(encoding="utf-8").split()
    return [" ".join(chance.choices(words, k=min(longest, int(chance.lognormvariate(2.5, 1)) + 1))) for _ in range(64)]


class Bench:
    """The packaged backend under a manager of its own."""

    def __init__(self) -> None:
        self.lines: list[Decided] = []
        self.numbers = count()

    async def embed(self, driver: Driver, spec: ModelSpec, *asked: str, caller: Caller = Caller()) -> Any:
        request = Request(id=f"r{next(self.numbers)}", kind="embed", model=spec.name, texts=asked, caller=caller)
        return await driver.ask(request, spec)

    def run(self, use: Any) -> Any:
        async def main() -> Any:
            sink = lambda decisions: self.lines.extend(line for _, line in decisions)  # noqa: E731
            async with Driver(ControlPlaneManager(), Host({"onnx": sage_onnx}).backends, sink=sink) as driver:
                return await use(driver)

        return asyncio.run(main())


@pytest.mark.parametrize("name", MODELS)
def test_a_vector_has_the_same_bits_whatever_the_traffic_it_was_computed_in(name: str) -> None:
    spec, bench, asked = MODELS[name], Bench(), texts(1)

    async def use(driver: Driver) -> None:
        alone = numpy.concatenate([await bench.embed(driver, spec, text) for text in asked])
        together = await bench.embed(driver, spec, *asked)
        many: list[Coroutine[Any, Any, Any]] = [
            bench.embed(driver, spec, *asked[at : at + size], caller=Caller(tenant=f"t{size}"))
            for size in (1, 3, 7, 16)
            for at in range(0, len(asked), size)
        ]
        noise = [bench.embed(driver, spec, *texts(seed), caller=Caller(tenant="noise")) for seed in (2, 3)]
        crowd = await asyncio.gather(*many, *noise)
        for at, found in zip([at for size in (1, 3, 7, 16) for at in range(0, len(asked), size)], crowd, strict=False):
            assert abs(found - alone[at : at + len(found)]).max() <= 1e-6
        assert abs(together - alone).max() <= 1e-6

    bench.run(use)
    sizes = [line.rows for line in bench.lines]
    assert max(sizes) > 1
    # Full speed: the crowd is not run text by text.
    assert len({(line.engine, line.batch) for line in bench.lines}) < sum(sizes) / 2


def test_64_clients_with_one_short_text_each_share_batches_of_the_real_engine() -> None:
    spec, bench = MODELS["packaged int8"], Bench()

    async def client(driver: Driver, name: int) -> None:
        for turn in range(6):
            await bench.embed(driver, spec, f"client {name} asks about matter {turn}")

    async def use(driver: Driver) -> None:
        await asyncio.gather(*(client(driver, name) for name in range(64)))

    bench.run(use)
    batches = {line.batch for line in bench.lines}
    assert sum(line.rows for line in bench.lines) == 64 * 6
    assert 64 * 6 / len(batches) >= 8
