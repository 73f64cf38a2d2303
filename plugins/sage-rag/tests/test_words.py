"""Tests for words as lexical search compares them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sage_rag.words import words


def test_words_fold_case_and_width_and_part_characters() -> None:
    assert words("The ＬＥＡＳＥ's ﬁx_me 字語 v2") == ["the", "lease", "s", "fix", "me", "字", "語", "v2"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        (" .!?_-", []),
        ("don't", ["don", "t"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("e\u0301tude étude", ["étude", "étude"]),
        ("10.5 x²", ["10", "5", "x2"]),
        ("カナ・ｶﾅ 한글", ["カ", "ナ", "カ", "ナ", "한", "글"]),
        ("a🙂b", ["a", "b"]),
    ],
)
def test_words_of_many_kinds(text: str, found: list[str]) -> None:
    assert words(text) == found


@pytest.mark.parametrize("word", ["हिन्दी", "שָׁלוֹם", "مُحَمَّد", "தமிழ்", "i\u0307stanbul"])
def test_vowel_signs_and_accents_belong_to_their_word(word: str) -> None:
    assert words(f"a {word}, b") == ["a", unicodedata.normalize("NFKC", word).casefold(), "b"]


def test_a_mark_without_a_letter_is_no_word() -> None:
    assert words("\u0301 ! \u093f") == []


@given(st.text())
def test_words_hold_every_letter_and_nothing_but_letters_and_their_marks(text: str) -> None:
    folded = unicodedata.normalize("NFKC", text).casefold()
    found = words(text)
    assert all(word and word[0].isalnum() for word in found)
    assert [each for each in "".join(found) if each.isalnum()] == [each for each in folded if each.isalnum()]
    assert all(unicodedata.category(each)[0] in "LNM" for word in found for each in word)


@given(st.lists(st.text("abcxyzäß字語12", min_size=1)))
def test_words_are_found_whatever_parts_them(given: list[str]) -> None:
    assert words(" ".join(given)) == words("\n—".join(given)) == words("_" + "/".join(given).upper() + ".")


def test_a_letters_marks_are_those_that_unicode_names_so_in_the_scripts_of_today() -> None:
    codes = [*range(0x300, 0x1E00), *range(0xA66F, 0xABFF)]
    marks = [chr(code) for code in codes if unicodedata.category(chr(code)).startswith("M")]
    assert len(marks) > 1_000
    # Composition joins some to the letter before; none may be lost or stand between two words.
    assert [mark for mark in marks if len(words(f"z{mark}z")) != 1] == []
