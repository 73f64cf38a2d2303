"""Tests of sage_core.cli.outcome: one report, in words and as JSON."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest

from sage_core.cli.outcome import document, duration, finish, summary
from sage_core.common.records import RowFailure
from sage_core.kernel.runtime.report import Partitions, Report, StepReport

FULL = StepReport(rows_in=4, rows_out=4, partitions=Partitions(total=4, reused=0, run=4))
REUSED = StepReport(rows_in=4, rows_out=4, partitions=Partitions(total=4, reused=4))
PART = StepReport(rows_in=4, rows_out=4, partitions=Partitions(total=4, reused=3, run=1))
ABSENT = StepReport(absent=1, partitions=Partitions(total=1, run=1))


def report(**fields: Any) -> Report:
    return Report(**{"run_id": "r1", "status": "succeeded", **fields})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (10, "10 s"), (119.4, "119 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ({"z": FULL, "a": FULL}, "; ran z, a"),
        ({"z": REUSED, "a": REUSED}, "; everything was reused"),
        ({"z": FULL, "a": REUSED}, "; ran z; reused a"),
        ({"z": PART, "a": PART, "i": FULL}, "; ran i; ran 1 of 4 partitions of z, a"),
        ({"z": REUSED, "no": ABSENT}, "; everything was reused"),
        ({}, ""),
    ],
)
def test_the_summary_says_what_ran_and_what_was_reused(steps: dict[str, StepReport], text: str) -> None:
    assert summary(report(steps=steps), 1.5) == f"run r1: succeeded in 1.5 s{text}"


def test_the_document_grows_only_by_what_there_is_to_say() -> None:
    plain = document(report(steps={"a": FULL}))
    assert list(plain) == ["run_id", "status", "outputs", "steps", "tokens"]
    failure = RowFailure(step="a", row="0", kind="ValueError", message="no")
    more = document(report(error="e", failures=(failure,), warnings=("w",)))
    assert list(more)[5:] == ["error", "errors", "warnings"]


@pytest.mark.parametrize(("status", "happened"), [("failed", "failed: why"), ("cancelled", "stopped: why")])
def test_a_run_without_its_outputs_exits_1_and_can_be_resumed(
    status: str, happened: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(click.exceptions.Exit) as left:
        finish(report(status=status, error="why"), as_json=False, seconds=1)
    assert left.value.exit_code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"Error: run r1 {happened}\n  help: " in err
    assert err.endswith("sage runs resume r1\n")

    with pytest.raises(click.exceptions.Exit):
        finish(report(status=status, error="why"), as_json=True, seconds=1)
    assert json.loads(capsys.readouterr().out)["error"] == "why"


def test_values_are_shown_by_their_shape(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = {"word": " one ", "text": "two\nlines", "number": 3, "none": None, "empty": [], "rows": [1]}
    finish(report(outputs=outputs, warnings=("careful",)), as_json=False, seconds=1)
    out, err = capsys.readouterr()
    assert out == "word: one\ntext:\ntwo\nlines\nnumber: 3\nrows:\n[\n  1\n]\n"
    assert err.startswith("warning: careful\n")


def test_an_answer_without_passages_names_its_model_too(capsys: pytest.CaptureFixture[str]) -> None:
    finish(report(outputs={"answer": "yes"}, written_by={"answer": "m"}), as_json=False, seconds=1)
    out, err = capsys.readouterr()
    assert out == "answer, by m:\nyes\n"
    assert err.startswith("note: m wrote this; for better answers name a larger model in [models.m] of the workflow")
