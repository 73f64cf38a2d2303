"""Tests for the records between retrieval steps: places, what an index needs, errors."""

from __future__ import annotations

import pickle
from typing import Any

import msgspec
import pytest
from sage_rag.records import DocumentError, Entry, Passage, as_passages

CATS = Passage(path="a.md", start=0, end=5, text="Cats.")


def test_an_index_needs_vector_text_and_path() -> None:
    assert Entry.__struct_fields__ == ("vector", "text", "path", "start", "end")
    required = [field.name for field in msgspec.structs.fields(Entry) if field.required]
    assert required == ["vector", "text", "path"]


def test_passages_may_be_records_or_dicts() -> None:
    plain: dict[str, Any] = {"path": "a.md", "start": 0, "end": 5, "text": "Cats.", "title": "unused"}
    assert as_passages([CATS, plain]) == [CATS, CATS]
    assert as_passages(()) == []
    assert as_passages([{**plain, "score": 1}])[0].score == 1.0


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"path": None}, r"Expected `str`, got `null` - at `\$\[1\]\.path`"),
        ({"start": "0"}, r"Expected `int`, got `str` - at `\$\[1\]\.start`"),
    ],
)
def test_what_is_no_passage_is_named_by_place_and_field(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=problem):
        as_passages([CATS, msgspec.to_builtins(CATS) | changes])
    with pytest.raises(msgspec.ValidationError, match=r"missing required field `end` - at `\$\[0\]`"):
        as_passages([{"path": "a.md", "start": 0, "text": "Cats."}])


def test_the_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(DocumentError("a.md", "is empty", "fill it")))
    assert str(error) == "a.md: is empty\n  help: fill it"
    assert isinstance(error, ValueError)


def test_an_error_without_a_way_out_is_one_line() -> None:
    assert str(DocumentError("a.md", "is empty")) == "a.md: is empty"
