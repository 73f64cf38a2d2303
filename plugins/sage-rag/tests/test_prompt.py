"""Tests for `rag.prompt`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sage_rag.prompt import fill, prompt
from sage_rag.records import Passage
from sage_rag.tokens import spans


def passage(text: str, path: str = "a.md") -> Passage:
    return Passage(path=path, start=0, end=len(text), text=text)


def test_passages_are_numbered_and_named() -> None:
    text = prompt("Why?", [passage("First one.", "a.md"), passage("Second one.", "b.md")])
    assert "[1] a.md\nFirst one.\n\n[2] b.md\nSecond one." in text
    assert text.endswith("Question: Why?\nAnswer:")


def test_a_template_of_ones_own() -> None:
    template = '{n} for {question}: {passages} {{"json": 1}}'
    assert prompt("Q", [passage("T")], template=template) == '1 for Q: [1] a.md\nT {"json": 1}'


def test_no_passage_is_said() -> None:
    assert prompt("Q", [], template="{n} {passages}") == "0 (no passage)"


@pytest.mark.parametrize("template", ["{question.__class__}", "{0}", "{question!r}", "{passages[0]}", "{", "}", "{x}"])
def test_a_template_evaluates_nothing(template: str) -> None:
    with pytest.raises(ValueError, match=r"is not a field\. Fields: \{question\}, \{passages\}, \{n\}; a plain brace"):
        prompt("Q", [], template=template)


def test_a_document_cannot_bring_fields() -> None:
    assert prompt("{passages}", [passage("{question} {{")], template="{question}|{passages}") == (
        "{passages}|[1] a.md\n{question} {{"
    )


def test_passages_beyond_the_budget_are_left_out() -> None:
    given = [passage(f"word{number} " * 20) for number in range(5)]
    text = prompt("Q", given, template="{question} {passages}", budget=100)
    assert "[2]" in text
    assert "[3]" not in text


def test_the_first_passage_is_cut_rather_than_left_out() -> None:
    text = prompt("Q", [passage("word " * 500)], template="{question} {passages}", budget=50)
    assert 0 < text.count("word") < 50


@given(st.lists(st.text(max_size=40), max_size=6), st.integers(0, 60))
def test_the_budget_holds_whenever_the_template_fits(texts: list[str], budget: int) -> None:
    text = prompt("Why so?", [passage(one) for one in texts], template="{question}\n{passages}\n{n}", budget=budget)
    empty = len(spans("Why so?\n(no passage)\n0"))
    assert len(spans(text)) <= max(budget, empty)


def test_fill_knows_its_fields_only() -> None:
    assert fill("{a}{{{a}}}", {"a": "1"}) == "1{1}"
