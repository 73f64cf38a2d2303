from __future__ import annotations

from typing import Any

import pytest

from sage_core.kernel.dataflow import params, types
from sage_core.kernel.dataflow.diagnostics import Problems
from sage_core.kernel.dataflow.graph import Param
from sage_core.kernel.dataflow.settings import Settings


def read(**declared: Any) -> tuple[dict[str, Param], list[str]]:
    problems = Problems()
    found = params.read(Settings({"params": declared}, (), problems))
    return found, [problem.message for problem in problems]


def test_a_declaration_is_kept_whole() -> None:
    declared = {"type": "int", "default": 3, "choices": [3, 5], "min": 1, "max": 9, "description": "how many"}
    found, problems = read(n=declared)
    assert problems == []
    assert found["n"] == Param(
        name="n", type="int", required=False, default=3, choices=(3, 5), min=1, max=9, description="how many"
    )


@pytest.mark.parametrize(
    ("declared", "shown"),
    [
        ({"type": "string"}, "str"),
        ({"type": "path", "default": "x"}, "str"),
        ({"type": "int", "required": False}, "int | None"),
        ({"type": "float", "default": 1, "required": False}, "float"),
        ({"type": "list"}, "list[Any]"),
        ({"type": "json", "required": False}, "Any"),
        ({"type": "bool"}, "bool"),
    ],
)
def test_the_type_of_a_column(declared: dict[str, Any], shown: str) -> None:
    found, _ = read(p=declared)
    assert types.show(params.column(found["p"])) == shown


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"type": ["int"]}, "a list is not a type of params"),
        ({"type": "int", "choices": []}, "'choices' must be a list of values, not a list"),
        ({"type": "int", "max": 3, "choices": [5]}, "choice of param 'p': 5 is above the maximum 3"),
        ({"type": "int", "secret": True}, "a secret param is of type string"),
        (
            {"type": "string", "default": "${env.HOME}"},
            "default of param 'p': a default is a plain value, not a template",
        ),
        ({"type": "list", "default": "a"}, "default of param 'p': expected list[Any], got 'a'"),
        ({"type": "bool", "required": "no"}, "'required' must be true or false, not the text \"no\""),
    ],
)
def test_what_cannot_be_declared(declared: dict[str, Any], message: str) -> None:
    assert read(p=declared)[1] == [message]


def test_the_variable_of_a_secret() -> None:
    assert params.variable("api_key") == "SAGE_PARAM_API_KEY"
