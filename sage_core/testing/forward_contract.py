"""The contract suite of engines that speak OpenAI's HTTP: subclass it, set ``make_backend`` and ``spec``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from sage_core.common.contracts import Forwards
from sage_core.common.errors import AttemptFailed
from sage_core.common.records import Chunk, Kind, ModelSpec, Request
from sage_core.testing.engine_contract import BackendContract


class ForwarderContract(BackendContract):
    """What every engine keeps that passes a client's own JSON on to a server that speaks OpenAI's HTTP.

    Attributes:
        path: where chats go.
        served: the model's name in the body; empty is the name of `spec`.
        failing: a model whose first attempt fails and whose second does not; None skips what needs one.
    """

    kind: Kind | None = "generate"
    path: str = "/v1/chat/completions"
    prompt: str = "Write the numbers from one to twenty as words, separated by spaces."
    served: str = ""
    failing: ModelSpec | None = None

    def received(self, engine: Any) -> bytes | None:
        """The body that the server got last; None where that cannot be seen."""
        return None

    def cancelled(self, engine: Any) -> int | None:
        """How many answers the server has seen closed before their end; None where that cannot be seen."""
        return None

    def body(self, **fields: object) -> bytes:
        """A chat's JSON, spaced and escaped as no encoder would do it by itself."""
        chat = {"model": self.served or self.spec.name, "messages": [{"role": "user", "content": self.prompt}]}
        return json.dumps({**chat, "user": "\u00e4", **fields}, indent=1).encode() + b"\n "

    def forwarded(self, **fields: object) -> Request:
        """A chat as a gateway hands it over."""
        chat = ({"role": "user", "content": self.prompt},)
        body = self.body(**fields)
        return Request(id="contract", kind="generate", model=self.spec.name, messages=chat, path=self.path, body=body)

    def answer(self, **fields: object) -> list[Chunk]:
        """Everything a chat is answered with."""

        async def use(engine: Forwards) -> list[Chunk]:
            return [chunk async for chunk in engine.forward(self.forwarded(**fields))]

        return self.within(use)

    def test_it_can_forward(self) -> None:
        async def look(engine: object) -> bool:
            return isinstance(engine, Forwards)

        assert self.within(look), "the engine has no forward"

    def test_a_whole_answer_is_json_with_its_status_and_its_counts(self) -> None:
        chunks = self.answer(max_tokens=4)
        assert (chunks[0].status, chunks[0].content_type.split(";")[0]) == (200, "application/json")
        whole = json.loads(b"".join(chunk.data for chunk in chunks))
        assert whole["choices"][0]["message"]["role"] == "assistant"
        counted = whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"]
        assert (chunks[-1].prompt_tokens, chunks[-1].completion_tokens) == counted, "the last chunk has other totals"
        assert 0 < counted[1] <= 4

    def test_a_stream_is_events_as_they_come_then_the_counts(self) -> None:
        chunks = self.answer(max_tokens=8, stream=True, stream_options={"include_usage": True})
        assert (chunks[0].status, chunks[0].content_type.split(";")[0]) == (200, "text/event-stream")
        assert sum(bool(chunk.data) for chunk in chunks) > 1, "the answer came in one piece"
        events = b"".join(chunk.data for chunk in chunks).decode().split("\n\n")
        payloads = [event.removeprefix("data: ") for event in events if event.startswith("data: ")]
        assert payloads[-1].strip() == "[DONE]"
        usage = next(said["usage"] for said in map(json.loads, payloads[-2::-1]) if said.get("usage"))
        counted = usage["prompt_tokens"], usage["completion_tokens"]
        assert (chunks[-1].prompt_tokens, chunks[-1].completion_tokens) == counted, "the last chunk has other totals"
        assert sum(chunk.tokens for chunk in chunks) > 0, "no chunk says that it carries tokens"
        assert 0 < counted[1] <= 8

    def test_the_body_passes_unchanged(self) -> None:
        request = self.forwarded(max_tokens=2)

        async def use(engine: Forwards) -> bytes | None:
            async for _ in engine.forward(request):
                pass
            return self.received(engine)

        got = self.within(use)
        if got is None:
            pytest.skip("received returns None: what reached the server cannot be seen")
        assert got == request.body

    def test_what_the_server_refuses_is_its_answer(self) -> None:
        chunks = self.answer(messages=7)
        assert 400 <= chunks[0].status < 500
        assert json.loads(b"".join(chunk.data for chunk in chunks))["error"]

    def test_closing_it_cancels_the_work(self) -> None:
        async def use(engine: Any) -> tuple[int | None, int | None, list[Chunk]]:
            before = self.cancelled(engine)
            stream = engine.forward(self.forwarded(max_tokens=1_500, stream=True))
            assert isinstance(stream, AsyncGenerator), "closing a stream needs aclose: write forward as a generator"
            async with aclosing(stream):
                await anext(stream)
            after = before
            # A server sees a closed connection in its own time.
            while before is not None and after == before:
                await asyncio.sleep(0.01)
                after = self.cancelled(engine)
            return before, after, [chunk async for chunk in engine.forward(self.forwarded(max_tokens=2))]

        before, after, chunks = self.within(use)
        assert before is None or (after is not None and after == before + 1)
        assert chunks[0].status == 200

    def test_a_failed_attempt_is_raised_before_the_first_chunk(self) -> None:
        if self.failing is None:
            pytest.skip("failing is None: no attempt of this backend can be made to fail")
        failing = self.failing

        async def use() -> tuple[list[Chunk], list[Chunk]]:
            async with self.make_backend().open(failing) as engine:
                assert isinstance(engine, Forwards)
                first: list[Chunk] = []
                try:
                    async for chunk in engine.forward(self.forwarded(max_tokens=2)):
                        first.append(chunk)
                except AttemptFailed:
                    pass
                else:
                    pytest.fail("the first attempt of `failing` does not raise AttemptFailed")
                return first, [chunk async for chunk in engine.forward(self.forwarded(max_tokens=2))]

        first, second = asyncio.run(asyncio.wait_for(use(), self.seconds))
        assert first == []
        assert second[0].status == 200, "the attempt after the failed one fails too"
