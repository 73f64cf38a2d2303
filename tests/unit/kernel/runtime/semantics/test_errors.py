"""What happens to rows that fail: skipped or fatal, retried, bisected, timed out, reported, never leaking a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime.semantics.test_rows import items, lines, step


def with_log(flows: Flows, **more: Any) -> dict[str, Any]:
    return {"log": str(flows.home / "log"), **more}


def test_a_failing_row_ends_the_run_and_names_step_and_row(flows: Flows) -> None:
    report = flows.run({"steps": {"items": items("a", "bad b"), "frail": step("f.fragile", {"text": "items.text"})}})
    assert report.status == "failed"
    assert report.outputs == {}
    assert report.error == (
        "step 'frail' (row 1): ValueError: cannot read 'bad b'\n  help: mend the input, or set on_error = \"skip\""
    )


def test_a_skipped_row_is_absent_and_reported_and_a_fallback_takes_its_place(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "items": items("a", "bad b", "c bad", "d"),
                "frail": step("f.fragile", {"text": "items.text"}, on_error="skip"),
                "after": step("f.upper", {"text": "frail.text"}),
                "instead": step("f.upper", {"text": ["frail.text", "items.text"]}),
            },
            "outputs": {"after": "after", "instead": "instead"},
        }
    )
    assert report.status == "partial"
    assert report.outputs == {"after": ["A", "D"], "instead": ["A", "BAD B", "C BAD", "D"]}
    assert [(f.step, f.row, f.kind, f.message) for f in report.failures] == [
        ("frail", "1", "ValueError", "ValueError: cannot read 'bad b'"),
        ("frail", "2", "ValueError", "ValueError: cannot read 'c bad'"),
    ]
    assert (report.steps["frail"].rows_out, report.steps["frail"].failed, report.steps["after"].absent) == (2, 2, 2)


def test_an_iterator_that_raises_half_way_drops_all_of_its_rows_children(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "items": items("a b", "c bad d", "e"),
                "words": step("f.fragile_split", {"text": "items.text"}, on_error="skip"),
                "deep": step(
                    "f.fragile",
                    {
                        "text": "words.word",
                    },
                    on_error="skip",
                    **{"with": {"bad": "b"}},
                ),
                "per": step("f.join", {"text": "words.word"}, per="items"),
            },
            "outputs": {"words": "words.word", "per": "per"},
        }
    )
    assert report.outputs == {"words": ["a", "b", "e"], "per": ["a,b", "e"]}
    assert [(f.step, f.row) for f in report.failures] == [("words", "1"), ("deep", "0/1")]


def test_rows_are_numbered_in_the_run_whatever_their_partition(flows: Flows) -> None:
    texts = ["bad" if number in (3, 17, 29) else f"t{number}" for number in range(30)]
    report = flows.run(
        {
            "steps": {
                "items": {**items(*texts), "partition": 4},
                "frail": step("f.fragile", {"text": "items.text"}, on_error="skip"),
            }
        }
    )
    assert report.steps["frail"].partitions.total > 5
    assert [f.row for f in report.failures] == ["3", "17", "29"]


@pytest.mark.parametrize(("bound", "failed"), [(1, True), (2, False), ("49%", True), ("50%", False)], ids=str)
def test_max_errors_is_a_count_or_a_share(flows: Flows, bound: int | str, failed: bool) -> None:
    report = flows.run(
        {
            "steps": {
                "items": items("a", "bad", "b", "bad"),
                "frail": step("f.fragile", {"text": "items.text"}, on_error="skip", max_errors=bound),
            }
        }
    )
    assert report.status == ("failed" if failed else "partial")
    allowed = "49% of 4" if bound == "49%" else str(bound)
    assert report.error == (f"step 'frail': 2 rows failed, max_errors allows {allowed}" if failed else "")
    assert len(report.failures) == 2


def test_a_batch_may_report_single_rows(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "items": items("a", "bad", "b"),
                "many": step("f.reports", {"text": "items.text"}, on_error="skip"),
            }
        }
    )
    assert report.outputs["many"] == ["a", "b"]
    assert [(f.row, f.kind, f.message) for f in report.failures] == [("1", "user", "it is bad")]


def test_a_pure_batch_that_raises_is_halved_until_the_bad_row_is_alone(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "items": items("a", "b", "c", "bad"),
                "many": step("f.fragile_many", {"text": "items.text"}, on_error="skip", **{"with": with_log(flows)}),
            }
        }
    )
    assert report.outputs["many"] == ["a", "b", "c"]
    assert lines(flows) == ["a|b|c|bad", "a|b", "c|bad", "c", "bad"]
    assert [f.row for f in report.failures] == ["3"]


def test_an_impure_batch_that_raises_fails_whole(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "items": items("a", "b", "c", "bad"),
                "many": step(
                    "f.fragile_impure",
                    {"text": "items.text"},
                    on_error="skip",
                    batch={"max": 2},
                    **{"with": with_log(flows)},
                ),
            }
        }
    )
    assert report.outputs["many"] == ["a", "b"]
    assert lines(flows) == ["a|b", "c|bad"]
    assert [f.row for f in report.failures] == ["2", "3"]


def test_a_batch_of_the_wrong_length_ends_the_run_even_where_rows_may_be_skipped(flows: Flows) -> None:
    report = flows.run(
        {"steps": {"items": items("a", "b"), "many": step("f.shorter", {"text": "items.text"}, on_error="skip")}}
    )
    assert report.status == "failed"
    assert report.error == (
        "step 'many': a batch of 2 rows gave 1 results\n"
        "  help: a Batch operator returns exactly one entry per row, in order; use RowError for a row that failed"
    )


def test_keys_that_were_not_declared_end_the_run(flows: Flows) -> None:
    report = flows.run({"steps": {"items": items("a"), "other": step("f.other_keys", {"text": "items.text"})}})
    assert report.error == (
        "step 'other': returned finished, state, declared done, state\n"
        "  help: the fields of the annotated return type are the step's columns"
    )


def test_a_job_waits_and_is_tried_again_where_its_step_says_nothing(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "items": items("a", "flaky b"),
                "flaky": step("f.flaky", {"text": "items.text"}, **{"with": with_log(flows, kind="timeout")}),
            }
        }
    )
    assert report.status == "succeeded"
    assert lines(flows).count("flaky b") == 2
    with flows.open_store() as store:
        tried = [(a.attempt, a.outcome) for a in store.attempts(report.run_id)]
    assert tried == [(1, "done"), (1, "retried"), (2, "done")]


def test_only_named_causes_are_tried_again(flows: Flows) -> None:
    def run(kind: str, on: list[str]) -> tuple[str, int]:
        (flows.home / "log").unlink(missing_ok=True)
        report = flows.run(
            {
                "steps": {
                    "items": items("a", "flaky b"),
                    "flaky": step(
                        "f.flaky",
                        {"text": "items.text"},
                        retry={"max": 2, "base": "1ms", "on": on},
                        cache="off",
                        **{"with": with_log(flows, kind=kind, times=2)},
                    ),
                }
            }
        )
        return report.status, lines(flows).count("flaky b")

    assert run("timeout", ["timeout"]) == ("succeeded", 3)
    assert run("timeout", ["rate_limit"]) == ("failed", 1)
    assert run("user", ["timeout"]) == ("failed", 1)
    assert run("user", ["error"]) == ("succeeded", 3)


@pytest.mark.parametrize("use", ["f.late", "f.late_sync"])
def test_a_call_that_takes_too_long_fails_its_row(flows: Flows, use: str) -> None:
    report = flows.run(
        {
            "steps": {
                "items": items("a", "slow", "b"),
                "late": step(use, {"text": "items.text"}, timeout="100ms", on_error="skip"),
            }
        }
    )
    assert report.outputs["late"] == ["a", "b"]
    assert [(f.row, f.kind, f.message) for f in report.failures] == [
        ("1", "TimeoutError", "took longer than its timeout")
    ]


def test_a_call_that_never_ends_does_not_hold_up_the_end_of_the_run(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "items": items("a"),
                "stuck": step("f.stuck", {"text": "items.text"}, timeout="20ms", on_error="skip"),
            }
        }
    )
    assert report.status == "partial"


def test_a_collect_that_fails_is_absent_when_it_may_be_skipped(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "items": items("a b", "bad", "c"),
                "words": step("f.split", {"text": "items.text"}),
                "per": step("f.fragile_all", {"text": "words.word"}, per="items", on_error="skip"),
                "all": step("f.fragile_all", {"text": "words.word"}, on_error="skip"),
                "after": step("f.upper", {"text": "all.text"}),
            },
            "outputs": {"per": "per", "all": "all", "after": "after"},
        }
    )
    assert report.status == "partial"
    assert report.outputs == {"per": ["a,b", "c"], "all": None, "after": None}
    assert [(f.step, f.row) for f in report.failures] == [("per", "1"), ("all", "")]


def test_warnings_of_operators_are_shown_once_each(flows: Flows) -> None:
    report = flows.run({"steps": {"items": items("a", "a", "b"), "warns": step("f.warns", {"text": "items.text"})}})
    assert report.warnings == ("saw a", "saw b")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_secret_is_found_nowhere_after_a_run(flows: Flows, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    secret = "s3cr3t-of-the-test"
    monkeypatch.setenv("SAGE_PARAM_TOKEN", secret)
    monkeypatch.setenv("OTHER_TOKEN", secret + "-2")
    report = flows.run(
        {
            "params": {"token": {"type": "string", "secret": True}},
            "steps": {
                "items": {**items("a", "tell", "c"), "partition": 1},
                "leak": step(
                    "f.leak", {"text": "items.text"}, on_error="skip", **{"with": {"token": "${params.token}"}}
                ),
                "more": step(
                    "f.leak", {"text": "items.text"}, on_error="skip", **{"with": {"token": "${secret.OTHER_TOKEN}"}}
                ),
                "cells": step("f.scale", {"text": "items.text"}, matrix={"by": [1, 2]}),
            },
            "outputs": {"leak": "leak", "more": "more"},
        },
        workers=workers,
    )
    assert report.outputs == {"leak": ["a 18", "c 18"], "more": ["a 20", "c 20"]}
    assert [f.message for f in report.failures] == ["ValueError: denied for ***"] * 2
    assert workers or report.warnings == ("warned with ***",)
    assert holders(flows.home, secret) == []


def test_a_secret_is_not_in_the_error_that_ends_a_run(flows: Flows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_TOKEN", "s3cr3t-of-the-test")
    report = flows.run(
        {
            "steps": {
                "items": items("tell"),
                "leak": step("f.leak", {"text": "items.text"}, **{"with": {"token": "${secret.OTHER_TOKEN}"}}),
            }
        }
    )
    assert report.error.startswith("step 'leak' (row 0): ValueError: denied for ***")
    assert holders(flows.home, "s3cr3t-of-the-test") == []


def holders(folder: Path, secret: str) -> list[Path]:
    """Files below a folder that hold the secret's bytes."""
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
