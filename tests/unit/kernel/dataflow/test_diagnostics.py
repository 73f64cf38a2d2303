from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_core.kernel.dataflow.diagnostics import Diagnostic, Places, Problems, dotted, one_of, render
from sage_core.kernel.dataflow.spans import Span


def test_a_diagnostic_is_place_message_line_caret_and_help() -> None:
    text = render("w.toml", Span(line=12, column=5, length=3), 'a = "b"', "it is wrong", "write c")
    assert text == 'w.toml:12:5: it is wrong\n  12 | a = "b"\n     |     ^^^\n  help: write c'


def test_without_a_place_the_path_is_named() -> None:
    assert render(dotted(("steps", "a", "in", 0)), None, "", "it is wrong") == "steps.a.in.0: it is wrong"


@pytest.mark.parametrize(
    ("line", "column", "length", "caret"),
    [
        ('\tx\t= "y"', 6, 3, "\t \t  ^^^"),
        ("日本 = 1", 6, 1, "       ^"),
        ("a = 日本", 5, 2, "    ^^^^"),
        ("e\u0301 = 1", 6, 1, "    ^"),
        ("short", 9, 4, "     ^"),
    ],
)
def test_the_caret_stands_below_what_it_means_in_a_terminal(line: str, column: int, length: int, caret: str) -> None:
    shown = render("f", Span(line=1, column=column, length=length), line, "m").split("\n")
    assert shown[1] == f"   1 | {line}"
    assert shown[2] == f"     | {caret}"


@given(
    st.text(st.sampled_from("aé日\t\u0301ﾊ𝒳"), max_size=12), st.text(st.sampled_from("aé日ﾊ"), min_size=1, max_size=5)
)
def test_the_caret_line_is_as_wide_as_the_text_above(before: str, marked: str) -> None:
    shown = render("f", Span(line=1, column=len(before) + 1, length=len(marked)), before + marked, "m").split("\n")
    caret = shown[2].removeprefix("     | ")

    def width(text: str) -> int:
        return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)

    assert [width(part) for part in caret.rstrip("^").split("\t")] == [width(part) for part in before.split("\t")]
    assert caret.count("^") == width(marked)


def test_one_problem_is_said_once() -> None:
    problems = Problems()
    problems.add(("a",), "x")
    problems.add(("a",), "x")
    problems.add(("a",), "x", part="key")
    assert problems == [Diagnostic(path=("a",), message="x"), Diagnostic(path=("a",), message="x", part="key")]


def test_help_names_the_closest_and_a_bounded_number_of_candidates() -> None:
    assert one_of("chnk", ("chunk", "embed"), "steps") == "Did you mean 'chunk'? steps: chunk, embed"
    assert one_of("zzz", (), "params") == "params: none"
    assert one_of("zzz", [f"n{number}" for number in range(40)]).endswith("n10, n11, …")


def test_a_line_past_the_end_is_empty() -> None:
    shown = Places({"f": "a\n"}).render("f", Span(line=9, column=1), "m")
    assert shown.split("\n")[1] == "   9 | "
