from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sage_core.common.errors import InvalidWorkflow
from sage_core.kernel.dataflow.check import check_tree
from sage_core.kernel.dataflow.graph import Step
from sage_core.kernel.dataflow.options import join_path
from tests.workflows import sample_operators

PARAMS = {
    "n": {"type": "int", "default": 1},
    "name": {"type": "string"},
    "any": {"type": "json"},
    "key": {"type": "string", "secret": True},
}


def step(use: str = "t.tags", **keys: Any) -> Step:
    table = {"use": use, "in": {"text": {"value": "x"}}, **keys}
    tree = {"sage": 1, "params": PARAMS, "models": {"m": {"backend": "null"}}, "steps": {"s": table}}
    return check_tree(tree, sample_operators.host(), base=Path("/")).steps["s"]


def problems(use: str = "t.tags", **keys: Any) -> list[str]:
    with pytest.raises(InvalidWorkflow) as error:
        step(use, **keys)
    return [text.partition("\n")[0] for text in error.value.diagnostics]


@pytest.mark.parametrize(
    ("use", "given"),
    [
        ("t.tags", {"names": ["${params.name}", "x${params.n}"]}),
        ("t.tags", {"names": "${params.any}", "opts": {"k": "${params.key}", "s": "${secret.S}", "e": ["${env.E}"]}}),
        ("t.chunk", {"size": "${params.n}"}),
        ("t.chunk", {"size": "${params.any}"}),
        ("t.embed", {"model": "m"}),
        ("t.embed", {"model": "${params.name}"}),
        ("t.tags", {"names": ["$${literal}", "params.unknown", "${run.id}"]}),
    ],
)
def test_templates_stay_in_place_and_defaults_are_filled_in(use: str, given: dict[str, Any]) -> None:
    found = step(use, **{"with": given})
    assert {name: found.options[name] for name in given} == given
    assert set(found.options) == {option.name for option in found.signature.options}


@pytest.mark.parametrize(
    ("use", "given", "message"),
    [
        ("t.chunk", {"size": "${params.name}"}, "option 'size': takes int, but ${params.name} is str"),
        ("t.chunk", {"size": "${env.N}"}, "option 'size': takes int, but ${env.N} is str"),
        ("t.chunk", {"size": "1${params.n}"}, "option 'size': takes int, and '1${params.n}' makes a text"),
        ("t.chunk", {"size": 1.5}, "option 'size': expected int, got 1.5"),
        ("t.embed", {"model": "n"}, "option 'model': no model is named 'n'"),
        ("t.tags", {"names": ["${params.gone}"]}, "no param is named 'gone'"),
        ("t.tags", {"names": [float("nan")]}, "nan is not a number that can be stored"),
    ],
)
def test_what_does_not_fit(use: str, given: dict[str, Any], message: str) -> None:
    assert problems(use, **{"with": given}) == [f"steps.s.with.{next(iter(given))}: {message}"]


def test_a_matrix_is_the_product_in_order() -> None:
    found = step("t.chunk", matrix={"size": [1, 2], "overlap": [3, "${params.n}"]})
    assert found.matrix == (
        {"size": 1, "overlap": 3},
        {"size": 1, "overlap": "${params.n}"},
        {"size": 2, "overlap": 3},
        {"size": 2, "overlap": "${params.n}"},
    )
    assert found.columns["size"].kind == "int"


def test_a_matrix_gives_a_required_option() -> None:
    assert step(matrix={"names": [["a"], []]}).matrix == ({"names": ["a"]}, {"names": []})


def test_a_matrix_has_a_bound() -> None:
    many = list(range(101))
    assert problems("t.chunk", matrix={"size": many, "overlap": many}) == [
        "steps.s.matrix: the matrix has 10,201 cells, more than 10,000"
    ]


def test_paths_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    folder = Path("/base")
    assert join_path(["a", "/b", "~/c", "../d", ""], folder) == ["/base/a", "/b", "/home/me/c", "/d", ""]
    assert join_path(3, folder) == 3
