"""Tests for the estimate of tokens."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sage_rag.tokens import spans


def tokens(text: str) -> list[str]:
    return [text[start:end] for start, end in spans(text)]


@given(st.text(max_size=200))
def test_estimated_tokens_lie_in_order(text: str) -> None:
    found = spans(text)
    assert all(start < end for start, end in found)
    assert all(before <= after for (_, before), (after, _) in itertools.pairwise(found))


@given(st.text(max_size=200))
def test_every_character_but_white_space_is_in_a_token(text: str) -> None:
    assert "".join(tokens(text)) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        (" \n", []),
        ("A lease ends.", ["A", "lease", "ends", "."]),
        ("unbelievably", ["unbeliev", "ably"]),
        ("12345", ["12", "34", "5"]),
        ("v2_x", ["v", "2", "_", "x"]),
        ("日本語 カナ 한글", ["日", "本", "語", "カ", "ナ", "한", "글"]),
        ("naïve 🙂!", ["naïve", "🙂", "!"]),
    ],
)
def test_words_numbers_marks_and_characters_without_spaces(text: str, found: list[str]) -> None:
    assert tokens(text) == found
