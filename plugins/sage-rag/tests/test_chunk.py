"""Tests for `rag.chunk`: nothing is lost, places are true, sizes hold."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sage_rag.chunk import chunk
from sage_rag.records import Chunk
from sage_rag.split import By, sentences, split
from sage_rag.tokens import spans

WAYS = list(get_args(By))
PIECES = [*"ab .!#~-_é字。🙂\t\r\u2029\x1e", "word ", "longerword", "\n", "\n\n", "\n# H\n", "```\n", ". "]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=80).map("".join) | st.text(max_size=80)


def chunks(text: str, ctx: Any, **options: Any) -> list[Chunk]:
    async def collect() -> list[Chunk]:
        return [piece async for piece in chunk(text, ctx=ctx, **options)]

    return asyncio.run(collect())


@given(TEXTS, st.integers(1, 12), st.integers(0, 11), st.sampled_from(WAYS))
@example("\x1ea", 1, 0, "tokens")
def test_nothing_but_white_space_is_lost(text: str, size: int, overlap: int, by: By) -> None:
    overlap = min(overlap, size - 1)
    found = list(split(text, spans(text), size, overlap, by))
    covered = {place for start, end in found for place in range(start, end)}
    assert all(place in covered or text[place].isspace() for place in range(len(text)))
    for start, end in found:
        assert text[start:end] == text[start:end].strip() != ""
        assert len(spans(text[start:end])) <= size
    assert found == sorted(found)


@given(TEXTS, st.integers(2, 12))
def test_overlap_is_bounded_and_steps_forward(text: str, size: int) -> None:
    overlap = size // 2
    found = list(split(text, spans(text), size, overlap))
    for (_, end), (start, last) in itertools.pairwise(found):
        assert len(spans(text[start:end])) <= overlap
        assert last > end


@given(TEXTS)
def test_sentences_cover_the_text(text: str) -> None:
    found = list(sentences(text))
    assert "".join("".join(text[start:end].split()) for start, end in found) == "".join(text.split())


@given(st.text(max_size=200))
def test_estimated_tokens_lie_in_order(text: str) -> None:
    found = spans(text)
    assert all(start < end for start, end in found)
    assert all(before <= after for (_, before), (after, _) in itertools.pairwise(found))


def test_chunks_say_where_they_are(ctx: Any) -> None:
    text = "One sentence here. " * 40
    found = chunks(text, ctx, size=20, overlap=4)
    assert len(found) > 5
    assert all(text[piece.start : piece.end] == piece.text for piece in found)


def test_the_defaults_leave_a_short_text_whole(ctx: Any) -> None:
    assert chunks("  A short text.\n", ctx) == [Chunk(text="A short text.", start=2, end=15)]
    assert chunks(" \n ", ctx) == []
    assert chunks("", ctx) == []


def test_a_cut_prefers_a_paragraph_to_a_sentence_to_a_line(ctx: Any) -> None:
    text = "a b c d e f.\n\ng h. i\nj k l m n o p"
    assert chunks(text, ctx, size=10, overlap=0)[0].text == "a b c d e f."
    text = "a b c d e f. g h\ni j k l m n o p"
    assert chunks(text, ctx, size=10, overlap=0)[0].text == "a b c d e f."
    text = "a b c d e f g h\ni j k l m n o p"
    assert chunks(text, ctx, size=10, overlap=0)[0].text == "a b c d e f g h"


def test_sentences_stay_whole_where_they_fit(ctx: Any) -> None:
    text = "One two three. Four five six. Seven eight nine ten. Eleven."
    found = [piece.text for piece in chunks(text, ctx, size=8, overlap=0, by="sentence")]
    assert found == ["One two three. Four five six.", "Seven eight nine ten. Eleven."]
    found = [piece.text for piece in chunks(text, ctx, size=9, overlap=4, by="sentence")]
    assert found == ["One two three. Four five six.", "Four five six. Seven eight nine ten.", "Eleven."]


def test_a_heading_starts_a_chunk_but_not_inside_a_code_fence(ctx: Any) -> None:
    text = "Intro.\n# One\ntext\n```\n# no heading\n```\n## Two\nmore"
    assert [piece.text for piece in chunks(text, ctx, by="heading")] == [
        "Intro.",
        "# One\ntext\n```\n# no heading\n```",
        "## Two\nmore",
    ]


def test_tokens_can_be_the_models(ctx: Any) -> None:
    text = "unbelievably-long-hyphenated word and another"
    assert [piece.text for piece in chunks(text, ctx, size=2, overlap=0, model="m")] == [
        "unbelievably-long-hyphenated word",
        "and another",
    ]
    assert ctx.client.calls == [("tokenize", "m", 1)]


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (8, 8), (8, -1)])
def test_impossible_sizes_are_refused(ctx: Any, size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match=f"size = {size}, overlap = {overlap}: size is at least 1"):
        chunks("text", ctx, size=size, overlap=overlap)
