"""What a later run takes over from an earlier one, and what it does again."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_core.kernel.runtime.report import Report
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import flow_operators
from tests.unit.kernel.runtime.semantics.test_rows import lines, step


def ran(report: Report) -> dict[str, int]:
    """Jobs that were run, of steps that ran any."""
    return {name: s.partitions.run for name, s in report.steps.items() if s.partitions.run}


def world(*texts: str, partition: int = 0) -> dict[str, Any]:
    """A source that always runs."""
    return {"use": "f.world", "with": {"texts": list(texts)}, **({"partition": partition} if partition else {})}


def with_log(flows: Flows, **more: Any) -> dict[str, Any]:
    return {"log": str(flows.home / "log"), **more}


def test_a_second_run_reuses_all_that_is_pure(flows: Flows) -> None:
    tree = {
        "steps": {
            "world": world("a b", "c"),
            "words": step("f.split", {"text": "world.text"}),
            "up": step("f.upper", {"text": "words.word"}),
            "all": step("f.join", {"text": "up.text"}),
        },
        "outputs": {"all": "all", "up": "up"},
    }
    first, second = flows.run(tree), flows.run(tree)
    assert ran(first) == {"world": 1, "words": 1, "up": 1, "all": 1}
    assert ran(second) == {"world": 1}
    assert second.outputs == first.outputs
    assert second.steps["up"].partitions.reused == 1
    assert second.steps["up"].rows_out == 3
    assert second.run_id != first.run_id


def test_options_wiring_and_values_that_are_read_decide(flows: Flows) -> None:
    def tree(limit: int, question: str) -> dict[str, Any]:
        return {
            "params": {
                "question": {"type": "string", "default": question},
                "unread": {"type": "int", "default": limit},
            },
            "steps": {
                "world": world("a", "bbbb"),
                "short": step("f.short", {"text": "world.text"}, checkpoint=True, **{"with": {"limit": limit}}),
                "up": step("f.upper", {"text": "short.text"}),
                "ask": step("f.scale", {"text": "params.question"}),
                "pair": step("f.pair", {"left": "up.text", "right": "ask.value"}),
            },
        }

    flows.run(tree(3, "q"))
    assert ran(flows.run(tree(3, "q"))) == {"world": 1}
    assert ran(flows.run(tree(3, "other"))) == {"world": 1, "ask": 1, "pair": 1}
    # Another limit with the same outcome: what reads the filter's rows sees no difference.
    assert ran(flows.run(tree(4, "q"))) == {"world": 1, "short": 1}
    assert ran(flows.run(tree(9, "q"))) == {"world": 1, "short": 1, "up": 1, "pair": 1}


def test_a_changed_question_does_not_embed_the_documents_again(flows: Flows) -> None:
    tree = {
        "params": {"q": {"type": "string"}},
        "steps": {
            "world": world("a b", "c"),
            "words": step("f.split", {"text": "world.text"}),
            "embed": step("f.embed", {"text": "words.word"}, **{"with": with_log(flows)}),
            "query": step("f.embed", {"text": "params.q"}),
            "near": step("f.near", {"vector": "embed.vector", "query": "query.vector"}),
            "n": step("f.count", {"item": "near.near"}),
        },
        "outputs": {"near": "near", "n": "n"},
    }
    first = flows.run(tree, {"q": "one"})
    second = flows.run(tree, {"q": "another"})
    assert lines(flows) == ["3"]
    assert ran(second) == {"world": 1, "query": 1, "near": 1, "n": 1}
    assert first.outputs["near"] != second.outputs["near"]


def test_skipped_rows_are_reported_again_by_a_run_that_reuses_them(flows: Flows) -> None:
    def tree(*texts: str) -> dict[str, Any]:
        return {
            "steps": {
                "world": world(*texts, partition=4),
                "frail": step("f.fragile", {"text": "world.text"}, on_error="skip"),
            }
        }

    texts = ["bad" if number == 25 else f"t{number}" for number in range(30)]
    first = flows.run(tree(*texts))
    second = flows.run(tree(*texts))
    assert ran(second) == {"world": 1}
    assert second.failures == first.failures != ()
    assert second.status == "partial"
    # In a run with another row in front the same partition is reused, and its rows have other numbers.
    third = flows.run(tree("new", *texts))
    assert [failure.row for failure in third.failures] == ["26"]
    assert third.steps["frail"].partitions.run <= 2


def test_a_file_in_front_of_two_hundred_runs_at_most_two_partitions_again(flows: Flows) -> None:
    def tree(count: int) -> dict[str, Any]:
        texts = [f"document {number} of many" for number in reversed(range(count))]
        return {
            "steps": {
                "world": world(*texts, partition=16),
                "words": step("f.split", {"text": "world.text"}),
                "up": step("f.upper_memo", {"text": "words.word"}, **{"with": with_log(flows)}),
                "n": step("f.count", {"item": "up.text"}),
            }
        }

    flows.run(tree(200))
    before = len(lines(flows))
    report = flows.run(tree(201))
    assert report.steps["up"].partitions.total >= 8
    assert report.steps["up"].partitions.run <= 2
    assert lines(flows)[before:] == ["200"]
    assert report.outputs == {"n": 804}


def test_remembered_rows_are_found_across_partitions_and_steps(flows: Flows) -> None:
    def tree(partition: int, *texts: str) -> dict[str, Any]:
        return {
            "steps": {
                "world": world(*texts, partition=partition),
                "memo": step("f.embed_memo", {"text": "world.text"}, batch={"max": 2}, **{"with": with_log(flows)}),
                "again": step("f.embed_memo", {"text": "world.text"}, after="memo", **{"with": with_log(flows)}),
            }
        }

    first = flows.run(tree(100, "a", "b", "c", "a"))
    assert first.steps["memo"].computed == 4
    assert (first.steps["again"].computed, first.steps["again"].remembered) == (0, 4)
    second = flows.run(tree(1, "c", "x", "b"))
    assert (second.steps["memo"].computed, second.steps["memo"].remembered) == (1, 2)
    assert second.outputs["memo"] == second.outputs["again"] == [[1, 99, 1], [1, 120, 1], [1, 98, 1]]
    assert lines(flows) == ["2", "2", "1"]


def test_transient_failures_are_tried_again_by_the_next_run_and_others_are_not(flows: Flows) -> None:
    def tree(kind: str) -> dict[str, Any]:
        return {
            "steps": {
                "world": world("a", f"flaky {kind}"),
                "flaky": step(
                    "f.flaky", {"text": "world.text"}, on_error="skip", **{"with": with_log(flows, kind=kind)}
                ),
            }
        }

    assert [failure.kind for failure in flows.run(tree("timeout")).failures] == ["TimeoutError"]
    second = flows.run(tree("timeout"))
    assert (second.status, second.outputs["flaky"]) == ("succeeded", ["a", "flaky timeout"])
    assert flows.run(tree("user")).status == "partial"
    assert ran(flows.run(tree("user"))) == {"world": 1}


@pytest.mark.parametrize("cache", [False, "off"])
def test_a_step_without_cache_runs_in_every_run(flows: Flows, cache: bool | str) -> None:
    tree = {
        "steps": {
            "world": world("a"),
            "up": step("f.upper_memo", {"text": "world.text"}, cache=cache, **{"with": with_log(flows)}),
            "after": step("f.scale", {"text": "up.text"}),
        }
    }
    flows.run(tree)
    assert ran(flows.run(tree)) == {"world": 1, "up": 1, "after": 1}
    assert lines(flows) == ["a", "a"]


def test_an_impure_step_is_reused_by_a_resume_and_by_no_other_run(flows: Flows) -> None:
    tree = {
        "steps": {
            "world": world("a", "b"),
            "clock": step("f.clock", {"text": "world.text"}, checkpoint=True, **{"with": with_log(flows)}),
            "n": step("f.count", {"item": "clock.at"}),
            "gate": step("f.gate", {"n": "n"}, **{"with": {"path": str(flows.home / "open")}}),
        },
        "outputs": {"at": "clock", "gate": "gate"},
    }
    stopped = flows.run(tree)
    assert stopped.status == "failed"
    (flows.home / "open").touch()
    resumed = flows.resume(stopped.run_id)
    assert resumed.status == "succeeded"
    assert lines(flows) == ["a", "b"]
    assert ran(resumed) == {"gate": 1}
    assert resumed.steps["clock"].partitions.reused == 1
    again = flows.run(tree)
    assert lines(flows) == ["a", "b", "a", "b"]
    assert again.outputs["at"] != resumed.outputs["at"]


def test_keys_do_not_depend_on_run_or_row_ids(flows: Flows) -> None:
    def tree(*texts: str) -> dict[str, Any]:
        return {
            "steps": {
                "world": world(*texts, partition=1),
                "words": step("f.split", {"text": "world.text"}, **{"with": with_log(flows)}),
                "per": step("f.join", {"text": "words.word"}, per="world"),
            },
            "outputs": {"per": "per"},
        }

    flows.run(tree("a b", "c d", "e"))
    report = flows.run(tree("e", "c d", "a b", "c d"))
    assert report.steps["words"].partitions.run == 0
    assert report.outputs["per"] == ["e", "c,d", "a,b", "c,d"]
    assert sorted(lines(flows)) == ["a b", "c d", "e"]


def test_equal_partitions_of_one_run_are_computed_once_and_count_each(flows: Flows) -> None:
    report = flows.run(
        {
            "steps": {
                "world": world("bad", "bad", "bad", partition=1),
                "frail": step("f.fragile", {"text": "world.text"}, on_error="skip"),
            }
        }
    )
    assert [failure.row for failure in report.failures] == ["0", "1", "2"]


PACKAGE = """
from __future__ import annotations
from sage_core import hookimpl, operator
from {name}.helper import mark

@operator("edited.mark", returns="text")
def marked(text: str) -> str:
    return mark(text)

@hookimpl
def sage_operators() -> dict[str, str]:
    return {{"edited.mark": "{name}:marked"}}
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "src" / "edited_operators"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(PACKAGE.format(name=folder.name), encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder.parent))
    yield folder
    for name in [name for name in sys.modules if name.startswith(folder.name)]:
        del sys.modules[name]


def test_an_edited_helper_of_an_operator_runs_it_again(tmp_path: Path, package: Path) -> None:
    def run(sign: str) -> Report:
        (package / "helper.py").write_text(f"def mark(text): return text + {sign!r}\n", encoding="utf-8")
        for name in [name for name in sys.modules if name.startswith(package.name)]:
            del sys.modules[name]
        importlib.invalidate_caches()
        plugin = importlib.import_module(package.name)
        tree = {
            "steps": {
                "ask": step("edited.mark", {"text": {"value": "x"}}),
                "same": step("f.upper", {"text": {"value": "y"}}),
            }
        }
        return Flows(tmp_path / "home", {"edited": plugin, "flows": flow_operators}).run(tree)

    assert run("!").outputs["ask"] == "x!"
    assert ran(run("!")) == {}
    edited = run("--")
    assert edited.outputs["ask"] == "x--"
    assert ran(edited) == {"ask": 1}


def test_a_plan_says_what_a_run_would_do_and_writes_nothing(flows: Flows) -> None:
    tree = {
        "steps": {
            "world": world("a b", "c"),
            "words": step("f.split", {"text": "world.text"}),
            "ask": step("f.upper", {"text": {"value": "q"}}),
            "n": step("f.count", {"item": "words.word"}),
        }
    }
    assert {name: d.verb for name, d in flows.plan(tree).items()} == {
        "world": "always",
        "words": "deferred",
        "ask": "run",
        "n": "deferred",
    }
    flows.run(tree)
    with flows.open_store() as store:
        runs = len(store.runs())
    assert {name: d.verb for name, d in flows.plan(tree).items()} == {
        "world": "always",
        "words": "deferred",
        "ask": "reuse",
        "n": "deferred",
    }
    assert {name: d.verb for name, d in flows.plan(tree, probe=True).items()} == {
        "world": "always",
        "words": "reuse",
        "ask": "reuse",
        "n": "reuse",
    }
    tree["steps"]["world"] = world("a b", "c", "d", partition=1)
    probed = flows.plan(tree, probe=True)
    assert (probed["words"].verb, probed["words"].rows) == ("run", 3)
    with flows.open_store() as store:
        assert len(store.runs()) == runs
