"""Tests for `rag.highlight`."""

from __future__ import annotations

import asyncio
from math import log
from typing import Any

import pytest
from sage_rag.highlight import highlight
from sage_rag.records import Passage


def passage(text: str, path: str = "a.md", start: int = 0) -> Passage:
    return Passage(path=path, start=start, end=start + len(text), text=text, score=0.5)


def quoted(question: str, passages: list[Passage], ctx: Any, **options: Any) -> list[tuple[str, float]]:
    found = asyncio.run(highlight(question, passages, ctx=ctx, **options))
    return [(one.text, one.score) for one in found]


def test_highlight_quotes_the_sentence_with_its_place(ctx: Any) -> None:
    text = "Cats sleep. A worker renews its lease. The job is done."
    found = asyncio.run(highlight("Which worker renews a lost lease?", [passage(text, start=100)], k=1, ctx=ctx))
    assert found[0].text == "A worker renews its lease."
    assert (found[0].start, found[0].end) == (112, 138)
    assert text[found[0].start - 100 : found[0].end - 100] == found[0].text
    assert 0 < found[0].score < 1


def test_the_score_is_the_share_of_the_questions_words_by_their_rarity(ctx: Any) -> None:
    found = quoted("lease fence", [passage("A lease. A lease fence. No.")], ctx)
    # Of three sentences "lease" is in two and "fence" in one: log(1 + 3/3) and log(1 + 3/2).
    lease, fence = log(2), log(2.5)
    assert found == [
        ("A lease fence.", 1.0),
        ("A lease.", round(lease / (lease + fence), 6)),
        ("No.", 0.0),
    ]


def test_equal_sentences_keep_their_order_and_k_of_them_are_kept(ctx: Any) -> None:
    given = [passage("Lease one. Lease two.", path="b.md"), passage("Lease three. Lease four.", path="a.md")]
    assert [text for text, _ in quoted("lease", given, ctx)] == ["Lease one.", "Lease two.", "Lease three."]
    assert len(quoted("lease", given, ctx, k=9)) == 4


def test_highlight_counts_a_sentence_of_two_overlapping_passages_once(ctx: Any) -> None:
    given = [passage("One lease. Two lease.", start=0), passage("Two lease. Six.", start=11)]
    found = asyncio.run(highlight("lease", given, k=5, ctx=ctx))
    assert [one.text for one in found] == ["One lease.", "Two lease.", "Six."]


def test_the_same_words_at_two_places_are_two_quotes(ctx: Any) -> None:
    given = [passage("A lease.", path="a.md"), passage("A lease.", path="b.md"), passage("A lease.", start=50)]
    found = asyncio.run(highlight("lease", given, ctx=ctx))
    assert [(one.path, one.start) for one in found] == [("a.md", 0), ("b.md", 0), ("a.md", 50)]


def test_highlight_can_compare_vectors(ctx: Any) -> None:
    found = asyncio.run(highlight("a lease", [passage("Cats. A lease. Dogs.")], k=1, model="m", ctx=ctx))
    assert found[0].text == "A lease."
    assert found[0].score == pytest.approx(1)
    assert ctx.client.calls == [("embed", "m", 4)]


def test_highlight_looks_for_what_is_asked_not_for_how(ctx: Any) -> None:
    given = [passage("The fence grows. See what is done. The fence guards. A fence is a number.")]
    found = asyncio.run(highlight("What is it?", given, k=1, ctx=ctx))
    assert found[0].text == "See what is done."
    found = asyncio.run(highlight("What is a fence?", given, ctx=ctx))
    assert all("fence" in one.text for one in found)


def test_a_question_in_another_script_is_compared_by_its_characters(ctx: Any) -> None:
    assert quoted("語とは？", [passage("字。語。")], ctx, k=1)[0][0] == "語。"


def test_highlight_without_passages_or_words(ctx: Any) -> None:
    assert asyncio.run(highlight("lease", [], ctx=ctx)) == []
    found = asyncio.run(highlight("?", [passage("Cats.")], ctx=ctx))
    assert [one.score for one in found] == [0]


def test_passages_of_white_space_hold_no_sentence(ctx: Any) -> None:
    assert asyncio.run(highlight("lease", [passage(" \n"), passage("")], model="m", ctx=ctx)) == []
    assert ctx.client.calls == []


def test_at_least_one_sentence_must_be_kept(ctx: Any) -> None:
    with pytest.raises(ValueError, match="k = 0: at least 1 sentence must be kept"):
        quoted("lease", [passage("A lease.")], ctx, k=0)


def test_passages_may_arrive_as_dicts(ctx: Any) -> None:
    row: Any = {"path": "a.md", "start": 0, "end": 5, "text": "Cats.", "score": 1}
    assert quoted("cats", [row], ctx) == [("Cats.", 1.0)]
