"""One step over the rows of one frame: presence, calls, columns and what is skipped; frames made by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from sage_core.common.errors import OperatorError
from sage_core.common.records import Job
from sage_core.kernel.runtime.job_runner import JobRun
from sage_core.kernel.runtime.steps import StepStats, run_collect, run_step
from sage_core.kernel.runtime.table import Column, Frame, Mask, Table
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime.one_process import one_process

ITEMS = {"use": "f.items", "with": {"texts": []}}


class Bench:
    """Runs single steps of one workflow on frames that a test fills."""

    def __init__(self, job: JobRun) -> None:
        self.job = job
        self.graph = job.graph

    def frame(self, *texts: str, mark: Mask = None, offset: int = 0) -> Frame:
        """A partition of `items`."""
        found = Frame({name: grain.parents for name, grain in self.graph.grains.items()}, offset=offset)
        table = found.tables["items"] = Table("items", len(texts))
        table.columns["items.text"] = Column(list(texts), mark)
        table.columns["items.id"] = Column(list(range(len(texts))), mark)
        table.marks["items"] = mark
        return found

    def step(self, frame: Frame, name: str) -> StepStats:
        return asyncio.run(run_step(self.job, frame, self.graph.steps[name]))

    def collect(self, frame: Frame, name: str, *parts: Frame) -> StepStats:
        return asyncio.run(run_collect(self.job, frame, self.graph.steps[name], parts))


@pytest.fixture
def bench(flows: Flows) -> Iterator[Bench]:
    text: dict[str, Any] = {"in": {"text": "items.text"}}
    steps = {
        "items": ITEMS,
        "upper": {"use": "f.upper", **text},
        "frail": {"use": "f.fragile", "on_error": "skip", **text},
        "strict": {"use": "f.fragile", **text},
        "short": {"use": "f.short", **text},
        "words": {"use": "f.fragile_split", "on_error": "skip", **text},
        "letters": {"use": "f.letters", "in": {"word": "words.word"}},
        "cells": {"use": "f.scale", **text, "matrix": {"by": [1, 2]}},
        "memo": {"use": "f.upper_memo", **text},
        "loop": {
            "use": "f.grow",
            "in": {"state": "items.text"},
            "repeat": {"max": 2, "until": "done", "feed": {"state": "state"}},
        },
        "per": {"use": "f.join", "in": {"text": "words.word"}, "per": "items"},
        "whole": {"use": "f.tally_later", **text},
        "broken": {"use": "f.fragile_all", **text, "on_error": "skip"},
    }
    with one_process(flows, {"steps": steps}) as run:
        run.submit()
        job = run.claim()
        yield Bench(JobRun(run.scope, Job(**{f: getattr(job, f) for f in Job.__struct_fields__})))


def test_a_step_runs_on_present_rows_and_is_present_on_those(bench: Bench) -> None:
    frame = bench.frame("a", "b", "c", mark=[True, False, True])
    stats = bench.step(frame, "upper")
    table = frame.tables["items"]
    assert (table.columns["upper.text"].values, table.marks["upper"]) == (["A", None, "C"], [True, False, True])
    assert (stats.rows_in, stats.rows_out, stats.absent, stats.failed) == (2, 2, 1, 0)


def test_a_step_that_is_present_everywhere_has_no_mask(bench: Bench) -> None:
    frame = bench.frame("a", "b")
    bench.step(frame, "upper")
    table = frame.tables["items"]
    assert (table.marks["upper"], table.columns["upper.text"].present) == (None, None)


def test_a_skipped_row_is_absent_and_labelled_as_the_run_counts_it(bench: Bench) -> None:
    frame = bench.frame("a", "x", "bad", mark=[True, False, True], offset=40)
    stats = bench.step(frame, "frail")
    assert frame.tables["items"].marks["frail"] == [True, False, False]
    assert (stats.rows_in, stats.rows_out, stats.absent, stats.failed) == (2, 1, 1, 1)
    (failure,) = bench.job.failures
    assert (failure.step, failure.row, failure.kind) == ("frail", "42", "ValueError")
    assert "cannot read 'bad'" in failure.message


def test_a_row_that_may_not_fail_ends_the_job_and_nothing_is_recorded(bench: Bench) -> None:
    with pytest.raises(OperatorError, match=r"step 'strict' \(row 8\): .*cannot read 'bad'(.|\n)*help: mend the input"):
        bench.step(bench.frame("a", "bad", "worse bad", offset=7), "strict")
    assert bench.job.failures == []


def test_a_filter_re_emits_its_ports_where_it_keeps(bench: Bench) -> None:
    frame = bench.frame("a", "long one", "bb")
    stats = bench.step(frame, "short")
    table = frame.tables["items"]
    assert (table.columns["short.text"].values, table.marks["short"]) == (["a", None, "bb"], [True, False, True])
    assert (stats.rows_in, stats.rows_out, stats.absent) == (3, 2, 0)


def test_children_know_their_parents_and_rows_that_failed_opened_none(bench: Bench) -> None:
    frame = bench.frame("a b", "x", "then bad", "", "c", mark=[True, False, True, True, True], offset=10)
    stats = bench.step(frame, "words")
    words = frame.tables["words"]
    assert (words.parent, words.columns["words.word"].values) == ([0, 0, 4], ["a", "b", "c"])
    # The empty text was opened and has no children; the absent and the failed one were not.
    assert frame.tables["items"].marks["words>"] == [True, False, False, True, True]
    assert (stats.rows_in, stats.rows_out, stats.failed) == (4, 3, 1)
    assert [failure.row for failure in bench.job.failures] == ["12"]
    bench.step(frame, "letters")
    assert frame.tables["letters"].parent == [0, 1, 2]
    assert frame.label("letters", 2) == "14/0/0"


def test_a_collect_runs_for_groups_that_were_opened_even_when_empty(bench: Bench) -> None:
    frame = bench.frame("a b", "then bad", "", "c")
    bench.step(frame, "words")
    stats = bench.step(frame, "per")
    per = frame.tables["items"].columns["per.text"]
    assert (per.values, per.present) == (["a,b", None, "", "c"], [True, False, True, True])
    assert (stats.rows_in, stats.rows_out) == (3, 3)


def test_a_collect_to_the_run_sees_all_partitions_in_order_without_absent_rows(bench: Bench) -> None:
    parts = [bench.frame("a", "b", mark=[True, False]), bench.frame(), bench.frame("c")]
    run = Frame({"items": ("",)})
    stats = bench.collect(run, "whole", *parts)
    assert run.tables[""].columns["whole.text"].values == ["a,c"]
    assert (stats.rows_in, stats.rows_out, stats.absent) == (2, 1, 1)


def test_a_collect_that_fails_and_may_be_skipped_is_absent(bench: Bench) -> None:
    run = Frame({"items": ("",)})
    stats = bench.collect(run, "broken", bench.frame("a", "bad"))
    assert (run.tables[""].marks["broken"], stats.failed, stats.rows_out) == ([False], 1, 0)
    assert [(failure.step, failure.row) for failure in bench.job.failures] == [("broken", "")]


def test_a_matrix_opens_a_row_per_cell_with_the_cells_options(bench: Bench) -> None:
    frame = bench.frame("a", "x", "b", mark=[True, False, True])
    bench.step(frame, "cells")
    cells = frame.tables["cells"]
    assert cells.columns["cells.value"].values == ["a+1", "a+2", "b+1", "b+2"]
    assert (cells.columns["cells.by"].values, cells.parent) == ([1, 2, 1, 2], [0, 0, 2, 2])


def test_a_loop_feeds_back_until_its_condition_or_bound(bench: Bench) -> None:
    frame = bench.frame("", "xxxx", "xx")
    bench.step(frame, "loop")
    table = frame.tables["items"]
    assert table.columns["loop.state"].values == ["xx", "xxxxx", "xxxx"]
    assert table.columns["loop.done"].values == [False, True, True]


def test_a_remembered_row_is_not_computed_again(bench: Bench) -> None:
    first = bench.step(bench.frame("a", "b"), "memo")
    second = bench.step(bench.frame("b", "c"), "memo")
    assert (first.computed, first.remembered) == (2, 0)
    assert (second.computed, second.remembered) == (1, 1)


@pytest.mark.parametrize("name", ["upper", "frail", "short", "words", "cells", "loop", "memo"])
def test_no_rows_are_no_error_and_leave_columns_for_what_follows(bench: Bench, name: str) -> None:
    frame = bench.frame()
    stats = bench.step(frame, name)
    step = bench.graph.steps[name]
    assert {column: len(frame.column(step.out, f"{name}.{column}").values) for column in step.columns} == dict.fromkeys(
        step.columns, 0
    )
    assert (stats.rows_in, stats.rows_out) == (0, 0)
