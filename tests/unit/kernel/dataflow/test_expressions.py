from __future__ import annotations

import ast
import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_core.common.errors import BadValue
from sage_core.kernel.dataflow.expressions import (
    Secret,
    compile_when,
    escape,
    fill,
    is_name,
    reveal,
    template_refs,
    whole_ref,
)
from sage_core.kernel.dataflow.graph import Ref

VALUES: dict[str, object] = {
    "a.n": 3,
    "a.text": "abc",
    "a.tags": ["x", "y"],
    "a.gone": None,
    "params.deep": True,
    "done": False,
}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("a.n > 2", True),
        ("1 < a.n <= 3", True),
        ("a.n % 2 == 1 and not done", True),
        ("len(a.text) + 1", 4),
        ("a.n * 2 - 1 // 1", 5),
        ("7 / 2", 3.5),
        ("-a.n", -3),
        ("'x' in a.tags", True),
        ("a.text not in ['abc', 'z']", False),
        ("a.text in ('abc', 'z')", True),
        ("a.gone == null", True),
        ("a.gone == None or a.gone > 3", True),
        ("params.deep == true", True),
        ("done or 'fallback'", "fallback"),
        ("'ab' * 2", "abab"),
        ("  a.n\n", 3),
    ],
)
def test_what_a_condition_computes(text: str, result: object) -> None:
    assert compile_when(text).evaluate(VALUES) == result


def test_references_are_listed_once_in_order() -> None:
    compiled = compile_when("chunk.size.words > 3 and params.x and done and chunk.size.words < 9 and true")
    assert compiled.names == ("chunk.size.words", "params.x", "done")
    assert compiled.refs == (
        Ref(step="chunk", column="size", fields=("words",)),
        Ref(step="params", column="x"),
        Ref(step="done", column=""),
    )


@pytest.mark.parametrize(
    ("text", "present"),
    [
        ("a.x != null", {"a.x"}),
        ("None != a.x and a.y > 3 and (b.z != none)", {"a.x", "b.z"}),
        ("a.x != null or a.y > 3", set()),
        ("not a.x != null", set()),
        ("a.x == null", set()),
    ],
)
def test_what_a_condition_rules_null_out_for(text: str, present: set[str]) -> None:
    assert compile_when(text).present == present


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a condition is a text such as"),
        ("open('x')", "\"open('x')\": calls are not part of a condition\n  help: allowed: literals, references,"),
        ("len(a, b)", "'len(a, b)': calls are not part"),
        ("len(*a)", "'len(*a)': this is not part"),
        ("a.b()", "'a.b()': calls are not part"),
        ("2 ** 8", "'2 ** 8': there is no power operator"),
        ("a << 3", "'a << 3': this is not part of a condition"),
        ("a @ b", "'a @ b': this is not part of a condition"),
        ("a if b else c", "'a if b else c': there is no if … else"),
        ("lambda: 1", "'lambda: 1': functions are not part"),
        ("[x for x in a]", "'[x for x in a]': this is not part"),
        ("f'{a}'", "\"f'{a}'\": there are no f-strings"),
        ("(a := 3)", "'(a := 3)': a condition cannot assign"),
        ("a is None", "'a is None': compare with == instead of `is`"),
        ("'x'.upper", "\"'x'.upper\": only references such as step.column have a dot"),
        ("a[0]", "'a[0]': items cannot be taken with [ ]"),
        ("...", "'...': this is not part"),
        ("b'x'", "\"b'x'\": this is not part"),
        (
            "a.b?",
            "'a.b?' is not a condition: invalid syntax\n  help: a condition runs only where all it reads is present",
        ),
        ("a > 1; b", "'a > 1; b' is not a condition"),
        ("a || b", "help: write and, or, not"),
        ("(" * 300 + ")" * 300, "is not a condition: "),
        ("not " * 30 + "a", "is too large a condition\n  help: let an operator compute it"),
        (" + ".join("a" * 150), "is too large a condition"),
        ("a" * 1001, "the condition is longer than 1,000 characters"),
    ],
)
def test_what_is_no_condition(text: str, message: str) -> None:
    with pytest.raises(BadValue) as error:
        compile_when(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.n < a.text", "'a.n < a.text': < does not apply to int and str"),
        ("a.gone > 3", "'a.gone > 3': > does not apply to null and int"),
        ("len(a.n)", "'len(a.n)': len does not apply to int"),
        ("1 / (a.n - 3)", "'1 / (a.n - 3)': division by zero"),
        ("-a.text", "'-a.text': - does not apply to str"),
        ("'%999999999d' % a.n", "% computes a remainder; it does not format texts"),
        ("'x' * 999999999", "* would make more than 100,000 items"),
        ("999999 * [a.text]", "* would make more than 100,000 items"),
    ],
)
def test_what_fails_when_it_is_computed(text: str, message: str) -> None:
    with pytest.raises(BadValue) as error:
        compile_when(text).evaluate(VALUES)
    assert message in str(error.value)


# Texts that are likelier to be Python than random characters are.
_PIECES = """( ) [ ] . , + - * / % < > = : ' " \\ { } ** and or not in len( if else lambda for x a.b 9 9**9"""
_WORDS = st.sampled_from(
    [*_PIECES.split(), " ", "__import__", "__class__", "exec", "True", "await ", "yield ", "\n", "\0", "é"]
)


@given(st.one_of(st.text(max_size=60), st.lists(_WORDS, max_size=25).map("".join)))
@settings(max_examples=300, deadline=None)
def test_no_text_is_executed(text: str) -> None:
    """Whatever compiles is made of the allowed nodes, reads only its references, and raises only `BadValue`."""
    try:
        compiled = compile_when(text)
    except BadValue:
        return
    with contextlib.suppress(BadValue):
        compiled.evaluate({name: Trap() for name in compiled.names})
    names = (ast.Constant, ast.Name, ast.Attribute, ast.List, ast.Tuple, ast.Call, ast.expr_context)
    operations = (ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Compare, ast.boolop, ast.operator, ast.unaryop, ast.cmpop)
    for node in ast.walk(compiled._tree):
        assert isinstance(node, (*names, *operations))
        assert not isinstance(node, ast.Call) or (isinstance(node.func, ast.Name) and node.func.id == "len")


class Trap:
    """A value whose attributes must not be looked at by name."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"attribute {name} was read")


# ---------------------------------------------------------------- templates

SPACES: dict[str, dict[str, Any]] = {
    "params": {"n": 3, "name": "x", "tags": ["a", "b"], "flag": True, "none": None, "trick": "${env.HOME}"},
    "env": {"HOME": "/home/me"},
    "run": {"id": "r1"},
}


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("plain", "plain"),
        (5, 5),
        ("${params.n}", 3),
        ("${ params.tags }", ["a", "b"]),
        ("n=${params.n}, ${params.name}", "n=3, x"),
        ("${params.flag}!", "true!"),
        ("${run.id}/${env.HOME}", "r1//home/me"),
        ("$${params.n}", "${params.n}"),
        ("$$${params.n}", "$${params.n}"),
        ("100$ and $x {y}", "100$ and $x {y}"),
        ({"a": ["${params.n}", {"b": "x${params.n}"}]}, {"a": [3, {"b": "x3"}]}),
        ("${params.trick}", "${env.HOME}"),
        ("<${params.trick}>", "<${env.HOME}>"),
    ],
)
def test_templates_are_filled(value: object, result: object) -> None:
    assert fill(value, SPACES) == result


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("${params.nam}", "${params.nam}: params has no 'nam' Did you mean 'name'?"),
        ("${env.GONE}", "${env.GONE}: environment variable GONE is not set\n  help: export GONE=…"),
        ("${parms.x}", "${parms.x} refers to nothing. Did you mean 'params'?\n  help: templates: ${params.…}"),
        ("${params}", "${params} refers to nothing."),
        ("${params.n + 1}", "${params.n + 1} refers to nothing."),
        ("${}", "${} refers to nothing."),
        ("${params.n", "${ is not closed\n  help: close it with }"),
        ("x${params.tags}", "${params.tags} is a list and cannot be part of a text\n  help: let it be the whole value"),
        ("x${params.none}", "${params.none} is a null and cannot be part of a text"),
    ],
)
def test_templates_that_cannot_be_filled(value: str, message: str) -> None:
    with pytest.raises(BadValue) as error:
        fill(value, SPACES)
    assert str(error.value).startswith(message)


def test_a_secret_stays_a_placeholder_until_it_is_used() -> None:
    filled = fill({"key": "${secret.KEY}", "header": "Bearer ${secret.KEY} of ${params.trick}"}, SPACES)
    assert filled["key"] == Secret(template="${secret.KEY}")
    assert filled["header"] == Secret(template="Bearer ${secret.KEY} of $${env.HOME}")
    assert reveal(filled, {"KEY": "k"}) == {"key": "k", "header": "Bearer k of ${env.HOME}"}
    assert fill("${secret.KEY}", {"secret": {"KEY": "k"}}) == "k"
    with pytest.raises(BadValue, match="environment variable KEY is not set"):
        filled["key"].reveal({})


def test_a_secret_param_stays_secret_inside_a_longer_text() -> None:
    key = Secret(template="${secret.SAGE_PARAM_KEY}")
    assert fill("Bearer ${params.key}", {"params": {"key": key}}) == Secret(template="Bearer ${secret.SAGE_PARAM_KEY}")
    assert fill("${params.key}", {"params": {"key": key}}) is key


def test_what_a_value_refers_to() -> None:
    value = {"a": ["${params.x}", "$${params.no} ${env.Y}"], "b": "${params.x}", "c": 3}
    assert template_refs(value) == (("params", "x"), ("env", "Y"))
    assert whole_ref("${params.x}") == ("params", "x")
    assert whole_ref(" ${params.x}") is None
    assert whole_ref("$${params.x}") is None
    assert whole_ref("${params.x}${params.y}") is None


@given(st.text(st.sampled_from("${}ab.\\ params")))
@settings(deadline=None)
def test_an_escaped_text_fills_to_itself(text: str) -> None:
    assert fill(escape(text), {}) == text
    assert template_refs(escape(text)) == ()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(_JSON)
@settings(deadline=None)
def test_a_value_that_is_one_template_keeps_its_type(value: object) -> None:
    assert fill("${params.x}", {"params": {"x": value}}) is value


@pytest.mark.parametrize(
    ("text", "good"), [("a_1", True), ("a-b", False), ("in", False), ("true", False), ("é", False), ("1a", False)]
)
def test_names_that_conditions_can_use(text: str, good: bool) -> None:
    assert is_name(text) is good
