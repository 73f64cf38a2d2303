"""`sage bench` as a user types it, from a suite file to a report."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from sage_bench.results import read_lines

Sage = Callable[..., "subprocess.CompletedProcess[str]"]

SUITE = """\
suite = "tiny"
title = "t"
shows_not = "anything"
repeat = 2

[cases.rows]
measure = "rows"
with = { count = 300 }

[cases.cranfield]
measure = "retrieval"
data = "cranfield"
with = { figures = ["ndcg@10", "recall@5"], k = 10 }
"""


@pytest.fixture
def suite(tmp_path: Path) -> str:
    (tmp_path / "tiny.toml").write_text(SUITE)
    return "tiny.toml"


def test_a_suite_gives_a_table_a_file_of_lines_and_a_report(
    sage: Sage, suite: str, collection: Path, tmp_path: Path
) -> None:
    done = sage("bench", suite, "--data", str(collection.parent), "--seed", "5", "--out", "results.jsonl")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no progress where nobody watches"
    rows, cranfield = read_lines(tmp_path / "results.jsonl")
    assert (rows.suite, rows.case, rows.seed, rows.repeat) == ("tiny", "rows", 5, 2)
    assert rows.machine["cores"] >= 1
    assert {"sage-core", "sqlite"} <= rows.packages.keys()
    assert rows.rerun == ("sage bench run tiny.toml --case rows --seed 5 --repeat 2",)
    figures = {figure.name: figure for figure in cranfield.figures}
    assert set(figures) == {
        f"{mode} {name}" for mode in ("bm25", "dense", "hybrid") for name in ("ndcg@10", "recall@5")
    }
    assert len(figures["dense ndcg@10"].values) == 3, "one value a judged question"
    assert figures["hybrid recall@5"].value == 1.0
    assert cranfield.facts["documents skipped"] == 1
    assert all("hybrid is " in remark for remark in cranfield.remarks)
    shown = sage("bench", "report", "results.jsonl")
    assert shown.returncode == 0
    assert shown.stdout == done.stdout
    assert "whole run / plain loop" in shown.stdout
    lines = [json.loads(line) for line in sage("bench", "report", "results.jsonl", "--json").stdout.splitlines()]
    assert [(line["case"], line["seed"]) for line in lines] == [("rows", 5), ("cranfield", 5)]


def test_a_case_without_its_data_is_said_to_be_missing_and_the_others_go_on(sage: Sage, suite: str) -> None:
    done = sage("bench", "run", suite, "--json", "--repeat", "1")
    assert done.returncode == 1
    rows, cranfield = map(json.loads, done.stdout.splitlines())
    assert rows["figures"]
    assert "--cranfield PATH" in cranfield["error"]
    assert "figures" not in cranfield


def test_suites_are_listed_with_what_they_need(sage: Sage) -> None:
    done = sage("bench", "list")
    assert done.returncode == 0
    assert "squad-answers  (needs --squad_xquad_en PATH)" in done.stdout
    assert [suite["suite"] for suite in json.loads(sage("bench", "list", "--json").stdout)] == [
        "coldstart",
        "control_plane",
        "decisions",
        "embedding",
        "gateway",
        "indexing",
        "isolation",
        "jobs",
        "overhead",
        "policies",
        "retrieval",
    ]


def test_wrong_names_are_explained(sage: Sage, suite: str) -> None:
    unknown = sage("bench", "indexng")
    assert unknown.returncode == 2
    assert "Did you mean 'indexing'?" in unknown.stderr
    case = sage("bench", suite, "--case", "row")
    assert case.returncode == 2
    assert "No case is named 'row'. Did you mean 'rows'?" in case.stderr


def test_the_command_is_part_of_sage(sage: Sage) -> None:
    assert "bench" in sage("--help").stdout
    shown = sage("bench", "--help").stdout
    assert "sage bench report results.jsonl" in shown
    assert "..." not in shown.partition("Commands:")[2], "a help text is cut short"


@pytest.mark.parametrize("name", ["list", "run", "report"])
def test_every_help_has_an_example_and_json(sage: Sage, name: str) -> None:
    shown = sage("bench", name, "--help").stdout
    assert f"  sage bench {name}" in shown.partition("Examples:")[2]
    assert "--json" in shown
