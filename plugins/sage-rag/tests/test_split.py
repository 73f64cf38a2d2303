"""Tests for where a text is cut: nothing is lost, sizes hold, cuts lie where something ends."""

from __future__ import annotations

import itertools
import re
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sage_rag.split import By, sentences, split
from sage_rag.tokens import spans

WAYS = list(get_args(By))
PIECES = [*"ab .!#~-_é字。🙂\t\r\u2029\x1e", "word ", "longerword", "\n", "\n\n", "\n# H\n", "```\n", ". "]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=80).map("".join) | st.text(max_size=80)


def cut(text: str, size: int, overlap: int = 0, by: By = "tokens") -> list[str]:
    return [text[start:end] for start, end in split(text, spans(text), size, overlap, by)]


def byte_pairs(text: str) -> list[tuple[int, int]]:
    """Tokens as byte-pair vocabularies cut them: each begins with the space before it, and none is lost."""
    return [match.span() for match in re.finditer(r"\s?[^\s.]+|\s|[.]", text)]


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


@given(TEXTS, st.integers(1, 12), st.integers(0, 11), st.sampled_from(WAYS))
def test_nothing_is_lost_where_tokens_hold_white_space(text: str, size: int, overlap: int, by: By) -> None:
    overlap = min(overlap, size - 1)
    found = list(split(text, byte_pairs(text), size, overlap, by))
    covered = {place for start, end in found for place in range(start, end)}
    assert all(place in covered or text[place].isspace() for place in range(len(text)))
    assert found == sorted(found)


def test_a_token_that_begins_with_a_space_may_begin_a_sentence() -> None:
    text = "Aaa bbb ccc ddd. Eee fff ggg hhh\n\niii jjj kkk."
    found = [text[start:end] for start, end in split(text, byte_pairs(text), 7)]
    assert found == ["Aaa bbb ccc ddd.", "Eee fff ggg hhh", "iii jjj kkk."]


def test_tokens_of_one_character_are_not_parted_from_it() -> None:
    # A byte-level vocabulary may spend four tokens on an emoji; all have its place.
    tokens = [(0, 1), *[(1, 2)] * 4, (2, 3)]
    assert list(split("a🙂b", tokens, 2)) == [(0, 1), (1, 3)]


@pytest.mark.parametrize("text", ["", " ", "\n\n\t", "\u2029"], ids=ascii)
@pytest.mark.parametrize("by", WAYS)
def test_white_space_makes_no_chunk(text: str, by: By) -> None:
    assert cut(text, 4, by=by) == []
    assert list(sentences(text)) == []


def test_a_text_without_any_token_is_one_chunk() -> None:
    assert list(split(" x ", [], 4)) == [(1, 2)]


def test_a_text_of_exactly_the_size_is_one_chunk() -> None:
    assert cut("a b c d", 4) == ["a b c d"]
    assert cut("a b c d e", 4) == ["a b c d", "e"]
    assert cut("a b c", 1) == ["a", "b", "c"]


def test_without_a_better_place_a_cut_is_at_the_size_and_the_overlap_before_it() -> None:
    assert cut("a b c d e f g", 4, 2) == ["a b c d", "c d e f", "e f g"]
    assert cut("a b c d e", 4, 3) == ["a b c d", "b c d e"]


def test_a_cut_too_early_to_be_worth_it_is_not_taken() -> None:
    # The paragraph ends in the first half of the size, the line in the second.
    assert cut("a\n\nb c d e f\ng h i j", 8)[0] == "a\n\nb c d e f"


def test_a_sentence_longer_than_the_size_is_cut_inside() -> None:
    assert cut("a b c d e f g. h i.", 4, by="sentence") == ["a b c d", "e f g.", "h i."]


def test_headings_of_every_level_begin_a_section_and_other_marks_do_not() -> None:
    text = "#no\n###### six\na\n####### seven\n# one\n## two\n~~~\n# code\n~~~\nb"
    assert cut(text, 100, by="heading") == [
        "#no",
        "###### six\na\n####### seven",
        "# one",
        "## two\n~~~\n# code\n~~~\nb",
    ]


def test_a_section_longer_than_the_size_is_cut_and_does_not_reach_into_the_next() -> None:
    assert cut("# A\na b c d e\n# B\nf", 5, 1, by="heading") == ["# A\na b c", "c d e", "# B\nf"]


@given(TEXTS)
def test_sentences_cover_the_text(text: str) -> None:
    found = list(sentences(text))
    assert "".join("".join(text[start:end].split()) for start, end in found) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("One. Two! Three? Four… Five", ["One.", "Two!", "Three?", "Four…", "Five"]),
        ('He said "No." Then he left.', ['He said "No."', "Then he left."]),
        ("一。二！「三。」四", ["一。", "二！", "「三。」", "四"]),
        ("A heading\n\nA text\nof two lines.", ["A heading", "A text\nof two lines."]),
        ("pi is 3.14 and e.g.so", ["pi is 3.14 and e.g.so"]),
        ("...", ["..."]),
    ],
)
def test_sentences_end_at_marks_and_paragraphs(text: str, found: list[str]) -> None:
    assert [text[start:end] for start, end in sentences(text)] == found


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (8, 8), (8, -1)])
def test_impossible_sizes_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match=f"size = {size}, overlap = {overlap}: size is at least 1, overlap from 0 to"):
        cut("text", size, overlap)
