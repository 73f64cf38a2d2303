from __future__ import annotations

from typing import Any

import pytest

from sage_core.kernel.dataflow import units
from sage_core.kernel.dataflow.diagnostics import Problems
from sage_core.kernel.dataflow.keys import COUNT, TEXT, TEXTS, Key, table
from sage_core.kernel.dataflow.settings import Settings


def settings(**table: Any) -> Settings:
    return Settings(table, ("t",), Problems())


def said(read: Settings) -> list[tuple[Any, str, str]]:
    return [(found.path, found.message, found.help) for found in read.problems]


def test_it_reads_what_is_there_table_by_table_and_leaves_out_what_is_wrong() -> None:
    keys = {"a": Key(COUNT), "b": table({"c": Key(TEXTS), "d": Key(TEXT)}, ""), "e": Key(TEXT), "f": Key(TEXT)}
    read = settings(a=0, b={"c": "x", "d": 1}, e="y")
    assert read.load(keys, "[t]") == {"b": {"c": ["x"]}, "e": "y"}
    assert [(path, text) for path, text, _ in said(read)] == [
        (("t", "a"), "'a' must be at least 1, not 0"),
        (("t", "b", "d"), "'d' must be a text, not 1"),
    ]


def test_a_key_may_have_a_reader_of_its_own() -> None:
    assert settings(k="1kB").values({"k": Key(TEXT, read=units.size)}, "[t]") == {"k": 1000}


@pytest.mark.parametrize(("example", "help"), [("", "write [t.k]"), ("k = { max = 3 }", "write k = { max = 3 }")])
def test_a_table_that_is_none_counts_as_empty(example: str, help: str) -> None:
    read = settings(k=[])
    assert read.values({"k": table({"max": Key(COUNT)}, "", example)}, "[t]") == {"k": {}}
    assert said(read) == [(("t", "k"), "'k' is a table, not a list", help)]


def test_unknown_and_missing_keys() -> None:
    read = settings(timeuot="x", odd=1)
    read.only(("timeout", "retry"), "[t]", lambda key: ("no odd", "even") if key == "odd" else None)
    assert read.values({"retry": Key(COUNT, needed="write it")}, "[t]") == {}
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
