from __future__ import annotations

import datetime
import math
from typing import Any

import pytest

from sage_core.kernel.dataflow import units
from sage_core.kernel.dataflow.diagnostics import Problems
from sage_core.kernel.dataflow.settings import Settings, kind, unstorable


def settings(**table: Any) -> Settings:
    return Settings(table, ("t",), Problems())


def said(read: Settings) -> list[tuple[Any, str, str]]:
    return [(found.path, found.message, found.help) for found in read.problems]


def test_getters_return_what_is_there_and_the_default_otherwise() -> None:
    read = settings(a="x", b=True, c=3, d=2.5, e=["x"], f="10s", g="fast")
    assert (read.text("a"), read.text("z", "y")) == ("x", "y")
    assert (read.flag("b"), read.flag("z", True)) == (True, True)
    assert (read.count("c"), read.count("z", 7)) == (3, 7)
    assert (read.number("d"), read.number("c"), read.number("z")) == (2.5, 3, None)
    assert (read.texts("e"), read.texts("a"), read.texts("z")) == (("x",), ("x",), ())
    assert (read.seconds("f"), read.seconds("z", 1.0)) == (10.0, 1.0)
    assert read.choice("g", ("fast", "slow"), "slow") == "fast"
    assert read.problems == []


@pytest.mark.parametrize(
    ("getter", "value", "message"),
    [
        ("text", 3, "'k' must be a text, not 3"),
        ("text", True, "'k' must be a text, not true"),
        ("flag", 1, "'k' must be true or false, not 1"),
        ("count", True, "'k' must be an integer, not true"),
        ("count", 0, "'k' must be at least 1, not 0"),
        ("number", math.inf, "'k' must be a number, not inf"),
        ("number", "x" * 50, "'k' must be a number, not a text"),
        ("texts", ["x", 1], "'k' must be a list of texts, not a list"),
        ("texts", {}, "'k' must be a list of texts, not a table"),
        ("section", [], "'k' is a table, not a list"),
        ("seconds", "x", "'x' is not a duration"),
    ],
)
def test_a_wrong_value_is_reported_and_reading_goes_on(getter: str, value: object, message: str) -> None:
    read = settings(k=value)
    getattr(read, getter)("k")
    assert [(path, text) for path, text, _ in said(read)] == [(("t", "k"), message)]


def test_unknown_and_missing_keys() -> None:
    read = settings(timeuot="x", odd=1)
    read.only(("timeout", "retry"), "[t]", lambda key: ("no odd", "even") if key == "odd" else None)
    assert not read.need("retry", "[t]", "write it")
    assert said(read) == [
        (("t", "timeuot"), "unknown key 'timeuot' in [t]", "Did you mean 'timeout'? keys: timeout, retry"),
        (("t", "odd"), "no odd", "even"),
        (("t",), "[t] needs 'retry'", "write it"),
    ]


def test_named_tables_of_a_section() -> None:
    read = Settings({"steps": {"a": {"x": 1}, "b": 3}}, (), Problems())
    assert [(name, entry.table, entry.path) for name, entry in read.sections("steps", "step")] == [
        ("a", {"x": 1}, ("steps", "a"))
    ]
    assert said(read) == [(("steps", "b"), "step 'b' is a table, not 3", "write [steps.b]")]


def test_a_choice_may_be_of_any_type() -> None:
    read = settings(k=[])
    assert read.choice("k", ("a",), "a") == "a"
    assert said(read) == [(("t", "k"), "'k' cannot be a list", "one of: a")]


def test_a_reader_of_its_own() -> None:
    assert settings(k="1kB").read("k", units.size, 0) == 1000


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "true"),
        (3, "3"),
        (10**30, "10000000000000000000"),
        ("x", 'the text "x"'),
        ({}, "a table"),
        (None, "a NoneType"),
    ],
)
def test_values_in_sentences(value: object, shown: str) -> None:
    assert kind(value) == shown


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"a": [1, 2.5, "x", True, None]}, ""),
        ({"a": [datetime.date(2024, 1, 1)]}, "a TOML date is not supported; write it as a text"),
        ([{"a": math.nan}], "nan is not a number that can be stored"),
    ],
)
def test_what_cannot_be_stored(value: object, problem: str) -> None:
    assert unstorable(value) == problem
