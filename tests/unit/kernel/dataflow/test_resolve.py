from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sage_core.common.errors import InvalidWorkflow
from sage_core.kernel.dataflow import types
from sage_core.kernel.dataflow.check import check_tree
from sage_core.kernel.dataflow.graph import Graph
from tests.workflows import sample_operators

FILES = {"use": "t.files", "with": {"path": "x"}}
CHUNK = {"use": "t.chunk", "in": {"text": "files.path"}}


def graph(**steps: dict[str, Any]) -> Graph:
    tree = {"sage": 1, "params": {"q": {"type": "string"}}, "steps": {"files": FILES, "chunk": CHUNK, **steps}}
    return check_tree(tree, sample_operators.host(), base=Path("/flows"))


def refused(**steps: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidWorkflow) as error:
        graph(**steps)
    return [text.partition("\n")[0] for text in error.value.diagnostics]


@pytest.mark.parametrize(
    ("step", "grain", "out"),
    [
        ({"use": "t.upper", "in": {"text": {"value": "x"}}}, "", ""),
        ({"use": "t.upper", "in": {"text": "params.q"}}, "", ""),
        ({"use": "t.upper", "in": {"text": "params.q"}, "rows": "files"}, "files", "files"),
        ({"use": "t.upper", "in": {"text": "files.path"}, "when": "chunk.start > 0"}, "chunk", "chunk"),
        ({"use": "t.upper", "in": {"text": ["chunk.text", "files.path"]}}, "chunk", "chunk"),
        ({"use": "t.chunk", "in": {"text": "chunk.text"}}, "chunk", "s"),
        ({"use": "t.chunk", "in": {"text": "params.q"}, "matrix": {"size": [1]}}, "", "s"),
        ({"use": "t.count", "in": {"item": "chunk.text"}}, "chunk", ""),
        ({"use": "t.count", "in": {"item": "chunk.text"}, "per": "files"}, "chunk", "files"),
        ({"use": "t.count", "in": {"item": "files.path"}, "rows": "chunk"}, "chunk", ""),
        ({"use": "t.count", "in": {"item": "params.q"}}, "", ""),
        ({"use": "t.note", "in": {"text": "chunk.text"}}, "chunk", "chunk"),
    ],
)
def test_a_step_runs_on_the_deepest_rows_among_its_inputs(step: dict[str, Any], grain: str, out: str) -> None:
    found = graph(s=step).steps["s"]
    assert (found.grain, found.out) == (grain, out)


def test_a_filter_re_emits_what_it_was_given() -> None:
    score = {"use": "t.score", "in": {"text": "files.path"}}
    short = {"use": "t.short", "in": {"text": "score.label"}}
    found = graph(score=score, short=short).steps["short"]
    assert {name: types.show(type_) for name, type_ in found.columns.items()} == {"text": "Literal['good', 'bad']"}


def test_a_path_given_as_a_literal_starts_at_the_workflow() -> None:
    step = {"use": "t.lines", "in": {"file": {"value": "notes/a.txt"}}}
    assert graph(s=step).steps["s"].ports["file"].value == "/flows/notes/a.txt"


def test_an_unreadable_input_leaves_the_rows_open_rather_than_wrong() -> None:
    bad = {"use": "t.upper", "in": {"text": "a b"}}
    after = {"use": "t.greet", "in": {"region": "bad.text", "total": {"value": 1.0}}, "rows": "chunk"}
    count = {"use": "t.count", "in": {"item": "bad.text"}, "per": "files"}
    assert refused(bad=bad, after=after, count=count) == ["steps.bad.in.text: 'a b' is not a reference"]


def test_a_step_with_an_error_still_says_what_its_own_columns_are() -> None:
    bad = {"use": "t.score", "in": {"text": "files.gone"}}
    after = {"use": "t.upper", "in": {"text": "bad.valeu"}}
    assert refused(bad=bad, after=after) == [
        "steps.bad.in.text: step 'files' has no column 'gone'",
        "steps.after.in.text: step 'bad' has no column 'valeu'",
    ]


def test_cells_of_a_matrix_do_not_pair_with_rows_of_another() -> None:
    one = {"use": "t.score", "in": {"text": "files.path"}, "matrix": {"mode": ["fast", "slow"]}}
    two = {"use": "t.greet", "in": {"region": "chunk.text", "total": "one.value"}}
    assert refused(one=one, two=two) == [
        "steps.two.in.total: unrelated rows: 'chunk.text' has the rows of 'chunk' and 'one.value' has the rows of "
        "'one', and neither comes from the other"
    ]
