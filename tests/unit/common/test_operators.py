"""The decorator marks and changes nothing else; the marker types are what their names say."""

from __future__ import annotations

from typing import Annotated, get_args, get_origin

import pytest

from sage_core import Batch, Dataset, Keep, Vector, operator
from sage_core.common.operators import MARK, OperatorInfo


def test_a_marked_function_stays_a_function() -> None:
    def shout(text: str) -> str:
        return text.upper()

    marked = operator("text.shout", returns="loud", memo=True, models=["m"], paths=["p"], version="2")(shout)
    assert marked is shout
    assert marked("a") == "A"
    assert getattr(marked, MARK) == OperatorInfo(
        name="text.shout", returns="loud", pure=True, memo=True, version="2", models=("m",), paths=("p",)
    )


def test_a_class_can_be_marked() -> None:
    @operator("text.fold", pure=False)
    class Fold:
        pass

    assert getattr(Fold, MARK).pure is False


def test_batches_and_datasets_are_lists_of_different_kinds() -> None:
    assert Batch([1, 2]) == [1, 2]
    assert not isinstance(Batch([1]), Dataset)


def test_a_vector_may_fix_its_length() -> None:
    fixed = Vector[384]  # type: ignore[type-arg,valid-type]
    assert get_origin(fixed) is Annotated
    assert get_args(fixed) == (Vector, 384)


def test_a_verdict_cannot_be_changed() -> None:
    verdict = Keep(True)
    with pytest.raises(AttributeError):
        verdict.keep = False  # type: ignore[misc]
