from __future__ import annotations

from typing import Any

import pytest

from sage_core.kernel.dataflow import layout
from sage_core.kernel.dataflow.diagnostics import Problems
from sage_core.kernel.dataflow.draft import Draft, draft
from sage_core.kernel.dataflow.settings import Settings
from tests.workflows import sample_operators


def make(table: dict[str, Any], **defaults: Any) -> Draft:
    problems = Problems()
    known = Settings(defaults, ("defaults",), problems).load(layout.DEFAULTS, "[defaults]")
    return draft("s", Settings(table, ("steps", "s"), problems), sample_operators.host(), known)


def test_it_lists_all_it_reads_with_places() -> None:
    table = {
        "use": "t.count",
        "in": {"item": ["a.x", "b.y?"]},
        "when": "c.z > params.n",
        "rows": "d",
        "after": ["e", "f"],
        "per": "g",
    }
    at = ("steps", "s")
    assert list(make(table).reads()) == [
        ("a", (*at, "in", "item", 0)),
        ("b", (*at, "in", "item", 1)),
        ("c", (*at, "when")),
        ("params", (*at, "when")),
        ("d", (*at, "rows")),
        ("g", (*at, "per")),
        ("e", (*at, "after", 0)),
        ("f", (*at, "after", 1)),
    ]


@pytest.mark.parametrize(("given", "value"), [(10, 10.0), (0, 0.0), ("1%", 0.01), ("12.5 %", 0.125)])
def test_how_many_errors_are_too_many(given: object, value: float) -> None:
    made = make({"use": "t.upper", "on_error": "skip", "max_errors": given})
    assert made.kept["max_errors"] == value
    assert made.settings.problems == []


@pytest.mark.parametrize("given", [-1, "0%", "100%", "x%", "10", 2.5, True])
def test_what_is_no_number_of_errors(given: object) -> None:
    made = make({"use": "t.upper", "on_error": "skip", "max_errors": given})
    assert [found.message.split(" cannot")[0] for found in made.settings.problems] == ["'max_errors'"]


@pytest.mark.parametrize(("given", "cache"), [("auto", True), ("off", False), (True, True), (False, False)])
def test_the_cache_may_be_switched(given: object, cache: bool) -> None:
    assert make({"use": "t.upper", "cache": given}).kept["cache"] is cache


@pytest.mark.parametrize("given", [1, 0, "on", []])
def test_what_is_no_cache(given: object) -> None:
    assert len(make({"use": "t.upper", "cache": given}).settings.problems) == 1


def test_the_steps_own_settings_go_before_the_defaults() -> None:
    made = make({"use": "t.upper", "timeout": "1s"}, timeout="9s", on_error="skip")
    assert (made.kept["timeout"], made.kept["on_error"]) == (1.0, "skip")


def test_what_is_in_the_wrong_table_or_misspelt_counts_as_given() -> None:
    made = make({"use": "t.chunk", "with": {"text": "x", "sise": 1}, "in": {"overlap": "a"}})
    assert made.misplaced() == {"use", "with", "in", "text", "overlap", "size"}


@pytest.mark.parametrize("use", ["", 3])
def test_an_operator_has_a_name(use: object) -> None:
    made = make({"use": use})
    assert made.signature is None
    assert len(made.settings.problems) == 1


def test_a_count_of_zero_is_refused_although_it_is_what_silence_means() -> None:
    problems = Problems()
    table = {"use": "t.upper", "partition": 0, "batch": {"max": 0}}
    settings = Settings(table, ("steps", "s"), problems)
    draft("s", settings, sample_operators.host(), {})
    assert [(found.path[2:], found.message) for found in problems] == [
        (("batch", "max"), "'max' must be at least 1, not 0"),
        (("partition",), "'partition' must be at least 1, not 0"),
    ]
