from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sage_core.common.errors import UsageError
from sage_core.common.records import ModelSpec
from sage_core.kernel.dataflow.bind import bind_model, bind_options, bind_params
from sage_core.kernel.dataflow.check import check_tree
from sage_core.kernel.dataflow.expressions import Secret, fill, reveal
from sage_core.kernel.dataflow.graph import Graph
from tests.workflows import sample_operators

CWD, BASE = Path("/here"), Path("/flows")


def graph(params: dict[str, Any], **step: Any) -> Graph:
    a = {"use": "t.chunk", "in": {"text": {"value": "x"}}, **step}
    tree = {"sage": 1, "name": "w", "params": params, "steps": {"a": a}}
    return check_tree(tree, sample_operators.host(), base=BASE)


def bind(params: dict[str, Any], given: dict[str, object], **environ: str) -> dict[str, object]:
    return bind_params(graph(params), given, cwd=CWD, environ=environ)


@pytest.mark.parametrize(
    ("declared", "given", "value"),
    [
        ({"type": "string"}, "5", "5"),
        ({"type": "string"}, " spaced ", " spaced "),
        ({"type": "int"}, "5", 5),
        ({"type": "int"}, 5, 5),
        ({"type": "float"}, "2.5", 2.5),
        ({"type": "float"}, 3, 3.0),
        ({"type": "bool"}, "true", True),
        ({"type": "bool"}, "No", False),
        ({"type": "bool"}, False, False),
        ({"type": "path"}, "docs", "/here/docs"),
        ({"type": "path"}, "../x/./y", "/x/y"),
        ({"type": "path"}, "/abs", "/abs"),
        ({"type": "list"}, "a, b", ["a", "b"]),
        ({"type": "list"}, '["a", 1]', ["a", 1]),
        ({"type": "list"}, "", []),
        ({"type": "json"}, '{"a": [null]}', {"a": [None]}),
        ({"type": "json"}, {"a": 1}, {"a": 1}),
        ({"type": "int", "min": 1, "max": 5}, "5", 5),
        ({"type": "string", "choices": ["a", "b"]}, "b", "b"),
    ],
)
def test_a_given_value_becomes_the_declared_type(declared: dict[str, Any], given: object, value: object) -> None:
    found = bind({"p": declared}, {"p": given})["p"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("declared", "given", "message"),
    [
        ({"type": "int"}, "five", "param 'p': 'five' is not an integer"),
        ({"type": "int"}, 2.5, "param 'p': expected int, got 2.5"),
        ({"type": "int"}, True, "param 'p': expected int, got True"),
        ({"type": "int"}, None, "param 'p': expected int, got None"),
        ({"type": "int"}, "9" * 5000, "is not an integer"),
        ({"type": "float"}, "nan", "param 'p': 'nan' is not a number"),
        ({"type": "float"}, float("inf"), "param 'p': inf is not a number that can be stored"),
        ({"type": "bool"}, "maybe", "param 'p': 'maybe' is not true or false (write true or false)"),
        ({"type": "string"}, 5, "param 'p': expected str, got 5"),
        ({"type": "json"}, "text", "param 'p': 'text' is not JSON (write JSON, a text in quotes:"),
        ({"type": "list"}, "[1,", "param 'p': '[1,' is not a list (write a,b,c or a JSON list)"),
        ({"type": "int", "min": 1}, "0", "param 'p': 0 is below the minimum 1"),
        ({"type": "float", "max": 1.5}, "2", "param 'p': 2.0 is above the maximum 1.5"),
        ({"type": "string", "choices": ["a", "b"]}, "c", "param 'p': 'c' is not among the choices a, b (one of: a, b)"),
        ({"type": "json", "choices": [1, 2]}, True, "param 'p': True is not among the choices 1, 2"),
    ],
)
def test_a_value_that_does_not_fit(declared: dict[str, Any], given: object, message: str) -> None:
    with pytest.raises(UsageError) as error:
        bind({"p": declared}, {"p": given})
    assert message in str(error.value)


def test_defaults_start_at_the_workflow_and_given_paths_at_the_current_folder() -> None:
    params = {"docs": {"type": "path", "default": "docs"}, "opt": {"type": "path", "required": False}}
    assert bind(params, {}) == {"docs": "/flows/docs", "opt": None}
    assert bind(params, {"docs": "mine", "opt": None}) == {"docs": "/here/mine", "opt": None}
    assert bind({"rate": {"type": "float", "default": 2}}, {})["rate"] == 2.0


def test_everything_wrong_is_said_at_once_with_what_is_declared() -> None:
    params = {
        "question": {"type": "string", "description": "what to ask"},
        "k": {"type": "int", "default": 5},
        "docs": {"type": "path", "required": False},
    }
    with pytest.raises(UsageError) as error:
        bind(params, {"qestion": "why", "k": "many"})
    assert str(error.value) == (
        "the workflow 'w' has no param 'qestion'. Did you mean 'question'?\n"
        "param 'question' is missing (--param question=…)\n"
        "param 'k': 'many' is not an integer\n"
        "  help: params:\n"
        "    question (string, required): what to ask\n"
        "    k (int, default 5)\n"
        "    docs (path, optional)"
    )
    with pytest.raises(UsageError, match="it declares no params"):
        bind({}, {"x": 1})


def test_a_secret_comes_from_the_environment_and_is_never_a_value() -> None:
    params = {"key": {"type": "string", "secret": True}, "n": {"type": "int", "default": 1}}
    values = bind(params, {}, SAGE_PARAM_KEY="hunter2")
    assert values == {"key": Secret(template="${secret.SAGE_PARAM_KEY}"), "n": 1}
    assert "hunter2" not in repr(values)
    header = fill("Bearer ${params.key}", {"params": values})
    assert reveal(header, {"SAGE_PARAM_KEY": "hunter2"}) == "Bearer hunter2"
    with pytest.raises(UsageError, match=r"param 'key' is missing \(it is secret: export SAGE_PARAM_KEY=…\)"):
        bind(params, {})
    with pytest.raises(UsageError, match="is secret and is not given on the command line") as error:
        bind(params, {"key": "hunter2"})
    assert "hunter2" not in str(error.value)
    assert bind({"key": {"type": "string", "secret": True, "required": False}}, {}) == {"key": None}


def test_options_are_filled_joined_and_held_against_their_types() -> None:
    found = graph({"n": {"type": "json"}}, **{"with": {"size": "${params.n}"}})
    step = found.steps["a"]
    assert bind_options(step, step.options, {"params": {"n": 7}}, BASE) == {"size": 7, "overlap": 32}
    assert bind_options(step, {"size": "${params.n}"}, {"params": {"n": 1}}, BASE) == {"size": 1}
    with pytest.raises(UsageError, match="step 'a', option 'size': expected int, got 'x'"):
        bind_options(step, step.options, {"params": {"n": "x"}}, BASE)
    with pytest.raises(UsageError, match=r"step 'a', option 'size': .*params has no 'n'"):
        bind_options(step, step.options, {"params": {}}, BASE)
    files = graph({}, use="t.files", **{"in": {}, "with": {"path": "${env.D}/x"}}).steps["a"]
    assert bind_options(files, files.options, {"env": {"D": "data"}}, BASE) == {"path": "/flows/data/x"}
    assert bind_options(files, files.options, {"env": {"D": "/data"}}, BASE) == {"path": "/data/x"}


def test_a_model_is_filled_and_keeps_its_secrets() -> None:
    model = ModelSpec(name="m", backend="b", source="${env.D}/m", options={"key": "${secret.K}", "n": [1]})
    found = bind_model(model, {"D": "/w", "K": "hunter2"})
    assert found.source == "/w/m"
    assert found.options == {"key": "${secret.K}", "n": [1]}
    with pytest.raises(UsageError, match=r"model 'm': .* environment variable D is not set"):
        bind_model(model, {})
