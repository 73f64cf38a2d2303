"""What the fake engine's options do: how long things take, what waits, and what fails when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from sage_core.common.errors import AttemptFailed, ModelError
from sage_core.common.records import ModelSpec, Request, Token
from sage_core.testing.clock import LoopClock, run_skipping
from sage_core.testing.engines import FakeBackend, FakeEngine, FakeOptions

MILLISECOND = 1_000_000


def engine(**options: Any) -> FakeEngine:
    return FakeEngine("m", FakeOptions(**options))


async def write(fake: FakeEngine, text: str, **fields: Any) -> list[int]:
    """Milliseconds at which the tokens came."""
    request = Request(id="r", kind="generate", model="m", prompt=text, **fields)
    return [LoopClock().now() // MILLISECOND async for _ in fake.generate(request)]


async def collect(fake: FakeEngine, text: str, into: list[Token]) -> None:
    async for token in fake.generate(Request(id="r", kind="generate", model="m", prompt=text)):
        into.append(token)


def test_tokens_come_as_fast_as_the_options_say() -> None:
    async def main() -> None:
        times = await write(engine(ttft=0.1, prompt_seconds=0.01, tokens_per_second=50), "a b c")
        assert times == [130, 150, 170, 190]

    run_skipping(main())


def test_each_further_request_slows_all_down_and_more_than_its_seats_wait() -> None:
    async def main() -> None:
        fake = engine(sequences=2, ttft=0.1, tokens_per_second=10, slowdown=0.5)
        first, second, third = await asyncio.gather(*(write(fake, "a b") for _ in range(3)))
        # The first one was alone when it began to read its prompt.
        assert first[:2] == [100, 250]
        assert second[:2] == [150, 300]
        assert third[0] > first[-1]

    run_skipping(main())


def test_attempts_fail_at_first_and_every_so_often() -> None:
    async def main() -> None:
        fake = engine(fail_first=1, fail_every=3, pause=2.0)
        ends = []
        for _ in range(6):
            try:
                await fake.rerank("a", ["a"])
                ends.append("done")
            except AttemptFailed as error:
                ends.append(f"{error.pause}")
        assert ends == ["2.0", "done", "2.0", "done", "done", "2.0"]
        assert fake.running == fake.cancelled == 0

    run_skipping(main())


@pytest.mark.parametrize(("fault", "error"), [("flaky", AttemptFailed), ("poison", ValueError)])
def test_a_fault_takes_effect_after_some_tokens_also_where_there_are_fewer(fault: str, error: type[Exception]) -> None:
    async def main() -> None:
        for text, after, written in (("a b c x", 2, 2), ("x", 5, 1), ("x", 0, 0)):
            fake = engine(after=after, **{fault: "x"})
            got: list[Token] = []
            with pytest.raises(error):
                await collect(fake, text, got)
            assert len(got) == written

    run_skipping(main())


def test_what_hangs_is_cancelled_and_journaled(tmp_path: Any) -> None:
    journal = tmp_path / "journal"

    async def main() -> None:
        fake = engine(hang="x", after=1, sequences=2, journal=str(journal))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await write(fake, "a x")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await fake.embed(["x"])
        assert fake.cancels == [("r", 1), ("", 0)]
        assert fake.running == 0

    run_skipping(main())
    assert journal.read_text().splitlines() == ["m cancelled", "m batch 1", "m cancelled"]


def test_garbage_is_no_answer_of_any_kind() -> None:
    async def main() -> None:
        fake = engine(garbage="x")
        assert (await fake.embed(["x"])).shape == (1, 15)
        assert len(await fake.rerank("x", ["a", "b"])) == 1
        request = Request(id="r", kind="generate", model="m", prompt="x")
        tokens = [token async for token in fake.generate(request)]
        assert not tokens[-1].finish
        for stream in (False, True):
            body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": stream}
            asked = Request(
                id="r", kind="generate", model="m", path="/chat/completions", body=json.dumps(body).encode()
            )
            data = b"".join([chunk.data async for chunk in fake.forward(asked)])
            assert b"[DONE]" not in data
            with pytest.raises(ValueError, match=r"codec|Expecting"):
                json.loads(data)

    run_skipping(main())


def test_the_first_openings_fail_and_what_is_deadly_ends_the_engine() -> None:
    spec = ModelSpec(name="m", backend="fake", options={"open_fails": 1, "open_seconds": 2.0, "deadly": "x"})

    async def main() -> None:
        backend = FakeBackend()
        with pytest.raises(ModelError, match="opening 1 of 1 that fail"):
            async with backend.open(spec):
                pass

        async def die() -> None:
            async with backend.open(spec) as fake:
                assert LoopClock().now() == 4_000 * MILLISECOND
                await fake.rerank("x", ["a"])

        with pytest.raises(ExceptionGroup) as died:
            await die()
        assert "died of 'x'" in str(died.value.exceptions[0])

    run_skipping(main())


def test_a_tools_arguments_are_json_whole_and_in_pieces() -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]

    async def ask(stream: bool) -> list[dict[str, Any]]:
        messages = [{"role": "user", "content": 'say "hi" twice'}]
        body = {"model": "m", "messages": messages, "tools": tools, "stream": stream}
        asked = Request(id="r", kind="generate", model="m", path="/v1/chat/completions", body=json.dumps(body).encode())
        answer: AsyncGenerator[Any] = engine().forward(asked)  # type: ignore[assignment]  # a generator, as it is written
        async with aclosing(answer) as chunks:
            data = b"".join([chunk.data async for chunk in chunks])
        if not stream:
            return [json.loads(data)["choices"][0]["message"]]
        events = [line.removeprefix("data: ") for line in data.decode().split("\n\n")[:-2]]
        return [json.loads(event)["choices"][0]["delta"] for event in events]

    async def main() -> None:
        (whole,) = await ask(stream=False)
        pieces = [call for delta in await ask(stream=True) for call in delta.get("tool_calls", ())]
        assert [piece["function"].get("name") for piece in pieces if "id" in piece] == ["look"]
        joined = "".join(piece["function"]["arguments"] for piece in pieces)
        assert json.loads(joined) == json.loads(whole["tool_calls"][0]["function"]["arguments"])
        assert json.loads(joined) == {"text": 'say "hi" twice'}

    run_skipping(main())
