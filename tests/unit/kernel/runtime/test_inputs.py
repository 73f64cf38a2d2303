"""What a job reads and what its key depends on, over runs moved by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sage_core.common.errors import CorruptArtifact
from sage_core.kernel.dataflow.graph import RUN
from sage_core.kernel.runtime.inputs import by_grain, column_grain, side_root
from sage_core.kernel.runtime.results import INLINE
from sage_core.platform.artifacts import ArtifactStore
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import flow_operators
from tests.unit.kernel.runtime.one_process import OneProcess, one_process

WORDS = {"use": "f.split", "in": {"text": "rows.text"}}


def tree(texts: list[str], **steps: dict[str, Any]) -> dict[str, Any]:
    """A source cut row by row, steps over its rows, and a parameter."""
    rows = {"use": "f.items", "with": {"texts": texts}, "partition": 1}
    return {"params": {"q": {"type": "string", "default": ""}}, "steps": {"rows": rows, **steps}}


def keys(run: OneProcess, stage: str) -> list[str]:
    """Keys of a stage's jobs in partition order."""
    return [run.manager.key(run.store, job) for job in sorted(run.jobs(stage), key=lambda job: job.part)]


def finished(home: Path, given: dict[str, Any], stage: str, run_id: str = "r", **params: object) -> list[str]:
    """Keys of a stage's jobs in a run of a home of its own."""
    with one_process(Flows(home, {"flows": flow_operators}), given, params, run_id=run_id) as run:
        run.submit()
        run.all()
        return keys(run, stage)


@pytest.mark.parametrize(
    ("step", "same"),
    [
        ({"use": "f.ident", "in": {"id": "rows.id"}}, [True, True]),
        ({"use": "f.upper", "in": {"text": "rows.text"}}, [True, False]),
        ({"use": "f.ident", "in": {"id": "rows.id"}, "when": "rows.text != 'x'"}, [True, False]),
        ({"use": "f.whole", "in": {"item": "rows"}}, [True, False]),
        ({"use": "f.ident", "in": {"id": {"value": 3}}, "rows": "rows"}, [True, True]),
    ],
    ids=["other column", "column", "condition", "whole record", "rows alone"],
)
def test_a_key_depends_on_the_values_of_the_columns_that_are_read(
    tmp_path: Path, step: dict[str, Any], same: list[bool]
) -> None:
    first = finished(tmp_path / "1", tree(["a", "b"], step=step), "step")
    second = finished(tmp_path / "2", tree(["a", "c"], step=step), "step")
    assert [one == other for one, other in zip(first, second, strict=True)] == same


def test_a_key_depends_on_a_parameter_that_is_read_and_on_no_other(tmp_path: Path) -> None:
    reads = tree(["a"], step={"use": "f.pair", "in": {"left": "rows.text", "right": "params.q"}})
    ignores = tree(["a"], step={"use": "f.upper", "in": {"text": "rows.text"}})
    for given, same in ((reads, False), (ignores, True)):
        one = finished(tmp_path / f"1{same}", given, "step", q="x")
        assert (one == finished(tmp_path / f"2{same}", given, "step", q="y")) is same


def test_a_key_names_no_run_unless_its_results_must_not_outlive_it(tmp_path: Path) -> None:
    for use, same in (("f.upper", True), ("f.clock", False)):
        given = tree(["a"], step={"use": use, "in": {"text": "rows.text"}})
        one = finished(tmp_path / f"1{use}", given, "step", "r1")
        assert (one == finished(tmp_path / f"2{use}", given, "step", "r2")) is same


def test_the_order_of_rows_decides_what_a_collect_reads(tmp_path: Path) -> None:
    step = {"use": "f.join", "in": {"text": "rows.text"}}
    assert finished(tmp_path / "1", tree(["a", "b"], step=step), "step") != finished(
        tmp_path / "2", tree(["b", "a"], step=step), "step"
    )


def test_a_job_reads_the_rows_of_its_partition_and_a_collect_all_partitions(flows: Flows) -> None:
    given = tree(
        ["a b", "", "c"],
        words={**WORDS, "checkpoint": True},
        up={"use": "f.pair", "in": {"left": "words.word", "right": "params.q"}},
        all={"use": "f.join", "in": {"text": "up.left"}},
    )
    with one_process(flows, given, {"q": "Q"}) as run:
        run.submit()
        run.all()
        stages = run.prepared.stages
        third = next(job for job in run.jobs("up") if job.part == 2)
        (frame,) = run.inputs.frames(run.store, stages["up"], third, root="rows")
        assert (frame.offset, frame.tables["rows"].n) == (2, 1)
        assert frame.column("words", "words.word").values == ["c"]
        assert frame.column("words", "params.q").values == ["Q"]
        assert frame.label("words", 0) == "2/0"
        (job,) = run.jobs("all")
        parts = run.inputs.frames(run.store, stages["all"], job, root="rows")
        assert [part.column("words", "up.left").values for part in parts] == [["a", "b"], [], ["c"]]
        (values,) = run.inputs.frames(run.store, stages["all"], job, root=RUN)
        assert list(values.tables) == [RUN]


def test_a_result_that_is_gone_from_the_store_names_its_stage(flows: Flows) -> None:
    given = tree(["a"], up={"use": "f.upper", "in": {"text": "rows.text"}})
    with one_process(flows, given) as run:
        run.submit()
        run.all()
    with one_process(flows, given) as run:
        (rows,) = run.jobs("rows")
        with run.store.transaction() as tx:
            assert tx.forget_results([rows.result_key or ""]) == 1
        with pytest.raises(CorruptArtifact, match=f"result {rows.result_key}: of stage 'rows' is gone from the store"):
            keys(run, "up")


def test_results_with_damaged_files_are_named_and_the_files_moved_away(flows: Flows) -> None:
    given = tree(["a" * INLINE, "b"], up={"use": "f.upper", "in": {"text": "rows.text"}})
    with one_process(flows, given) as run:
        run.submit()
        run.all()
        artifacts = ArtifactStore(flows.project.paths.artifacts)
        assert run.inputs.lost_results(artifacts) == []
        (stored,) = run.inputs._results[run.jobs("rows")[0].result_key or ""].tables.values()
        artifacts.path(stored.file).write_bytes(b"junk")
        assert run.inputs.lost_results(artifacts) == [run.jobs("rows")[0].result_key]
        with pytest.raises(CorruptArtifact, match="missing"):
            artifacts.path(stored.file)


def test_the_grain_of_what_a_stage_keeps(flows: Flows) -> None:
    other = {"use": "f.items", "with": {"texts": ["a"]}}
    both = {"use": "join", "in": {"left": "words", "right": "other"}, "on": {"words.word": "other.text"}}
    given = tree(
        ["a b"],
        words=WORDS,
        other=other,
        both=both,
        pair={"use": "f.pair", "in": {"left": "rows.text", "right": "other.text"}, "rows": "both"},
    )
    with one_process(flows, given) as run:
        stages = run.prepared.stages
        assert column_grain(run.prepared, stages["both"], "rows.text") == "both"
        assert column_grain(run.prepared, stages["words"], "words.word") == "words"
        assert (side_root(run.prepared, "words"), side_root(run.prepared, "pair")) == ("rows", "both")
        assert by_grain(run.prepared, stages["words"]) == {"words": (["words.word"], ["words"])}
        assert by_grain(run.prepared, stages["both"])["both"][0] == ["rows.text", "other.text"]
