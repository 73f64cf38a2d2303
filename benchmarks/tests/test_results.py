"""Result lines: written, read, judged, shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sage_bench import report
from sage_bench.results import Figure, Line, encode, read_lines

from sage_core import UsageError

FIGURE = Figure(name="cost", unit="×", values=(2.0, 4.0, 6.0), better="lower", aim=3.0)
LINE = Line(
    suite="s",
    case="c",
    seed=7,
    repeat=3,
    commit="abc",
    started_at="2030-01-01T00:00:00+00:00",
    seconds=1.5,
    python="3.12.0",
    packages={"numpy": "2"},
    machine={"cpu": "x", "cores": 2, "memory_gib": 4.0, "load_1min": 0.1, "load_1min_after": 0.9},
    rerun=("sage bench run s --case c",),
    figures=(FIGURE,),
    remarks=("mind the gap",),
)


def test_a_line_is_one_line_and_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_bytes(encode(LINE) + b"\n" + encode(LINE) + b"\n")
    assert read_lines(file) == [LINE, LINE]
    assert len(file.read_bytes().splitlines()) == 2


def test_a_line_says_its_figures_to_readers_without_this_package() -> None:
    [figure] = json.loads(encode(LINE))["figures"]
    assert figure["value"] == 4.0
    assert figure["values"] == [2.0, 4.0, 6.0]
    assert figure["interval"][0] <= 4.0 <= figure["interval"][1]


@pytest.mark.parametrize(
    ("better", "aim", "met"),
    [("lower", 4.0, True), ("lower", 3.9, False), ("higher", 4.0, True), ("higher", 4.1, False)],
)
def test_an_aim_is_met_or_missed(better: str, aim: float, met: bool) -> None:
    figure = Figure(name="f", unit="", values=(4.0,), better=better, aim=aim)  # type: ignore[arg-type]
    assert figure.met is met


def test_a_figure_without_an_aim_is_not_judged() -> None:
    assert Figure(name="f", unit="", values=(4.0,)).met is None


def test_the_table_shows_value_interval_and_verdict() -> None:
    [row] = report.rows([LINE])
    assert row == ("s/c", "cost", "4", "2 – 6", "×", "3 repeats, median", "≤ 3: missed")
    text = report.text([LINE], width=None)
    assert "≤ 3: missed" in text
    assert "s/c: mind the gap" in text


def test_a_case_without_figures_says_why() -> None:
    failed = Line(
        **{name: getattr(LINE, name) for name in LINE.__struct_fields__} | {"figures": (), "error": "no disk"}
    )
    assert report.rows([failed])[0][1] == "not measured"
    assert "s/c: no disk" in report.text([failed], width=None)


def test_a_page_of_documentation_gets_machine_and_load() -> None:
    page = report.markdown([LINE])
    assert "| s/c | cost | 4 | 2 – 6 | × | 3 repeats, median | ≤ 3: missed |" in page
    assert "Python 3.12.0; x, 2 cores, 4.0 GiB; revision abc." in page
    assert "0.1 to 0.9" in page


def test_a_file_that_holds_no_results_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_lines(tmp_path / "missing.jsonl")
    (tmp_path / "odd.jsonl").write_bytes(encode(LINE) + b'\n{"a": 1}\n')
    with pytest.raises(UsageError, match=r"odd\.jsonl, line 2: not a result.*\n  help: name a file"):
        read_lines(tmp_path / "odd.jsonl")
