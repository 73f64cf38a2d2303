"""Tests for `rag.chunk`: chunks know their place; test_split.py says where they are cut."""

from __future__ import annotations

import asyncio
from typing import Any

from sage_rag.chunk import chunk
from sage_rag.records import Chunk


def chunks(text: str, ctx: Any, **options: Any) -> list[Chunk]:
    async def collect() -> list[Chunk]:
        return [piece async for piece in chunk(text, ctx=ctx, **options)]

    return asyncio.run(collect())


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
