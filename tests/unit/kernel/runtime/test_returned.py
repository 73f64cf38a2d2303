from __future__ import annotations

from typing import Any

import msgspec
import numpy
import pytest

from sage_core.common.errors import OperatorError
from sage_core.common.operators import MARK
from sage_core.kernel.dataflow import signature
from sage_core.kernel.dataflow.graph import Step, Type
from sage_core.kernel.runtime.returned import output_columns
from tests.unit.kernel.runtime import flow_operators as operators


def step(operator: Any) -> Step:
    return Step(name="s", use=getattr(operator, MARK).name, signature=signature.of(operator), grain="", out="")


def test_fields_of_records_become_columns_whatever_kind_of_record() -> None:
    assert output_columns(step(operators.split), [operators.Word("a", 0), operators.Word("b", 1)]) == {
        "word": ["a", "b"],
        "at": [0, 1],
    }
    assert output_columns(step(operators.grow), [{"done": True, "state": "x"}]) == {"state": ["x"], "done": [True]}
    # A function may return any record with the declared fields, and more than one kind of it.
    mixed: list[Any] = [operators.Word("a", 0), {"word": "b", "at": 1}]
    assert output_columns(step(operators.split), mixed)["word"] == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "got"), [(operators.Letter("x"), "letter"), ({"word": "x"}, "word"), (7, "int")], ids=str
)
def test_other_keys_than_the_declared_are_refused(value: Any, got: str) -> None:
    with pytest.raises(OperatorError, match=f"step 's': returned {got}, declared at, word"):
        output_columns(step(operators.split), [value])


def test_vectors_become_one_block_of_one_dimension() -> None:
    block = output_columns(step(operators.embed), [[1, 2], numpy.array([3.0, 4.0])])["vector"]
    assert (block.dtype, block.tolist()) == (numpy.float32, [[1, 2], [3, 4]])
    assert output_columns(step(operators.embed), [])["vector"].shape == (0, 0)
    with pytest.raises(OperatorError, match="column 'vector': not vectors of one dimension"):
        output_columns(step(operators.embed), [[1, 2], [3]])
    fixed = step(operators.embed)
    fixed = msgspec.structs.replace(
        fixed, signature=msgspec.structs.replace(fixed.signature, columns={"vector": Type(kind="vector", dim=3)})
    )
    with pytest.raises(OperatorError, match=r"expected vectors of dimension 3, got shape \(2,\)"):
        output_columns(fixed, [[1, 2]])


def test_a_sink_has_no_columns() -> None:
    assert output_columns(step(operators.sink), [None]) == {}
