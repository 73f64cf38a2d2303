from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sage_core.kernel.dataflow import sections
from sage_core.kernel.dataflow.diagnostics import Problems
from sage_core.kernel.dataflow.graph import Param, Retry
from sage_core.kernel.dataflow.settings import Settings
from tests.workflows import sample_operators


def document(**tree: Any) -> Settings:
    return Settings(tree, (), Problems())


def said(read: Settings) -> list[str]:
    return [found.message for found in read.problems]


def test_a_retry_keeps_what_it_does_not_change() -> None:
    default = Retry(max=1, base=2.0, on=("timeout",))
    assert sections.retry(document(retry={"max": 4, "cap": "1m"}), default) == Retry(
        max=4, base=2.0, cap=60.0, on=("timeout",)
    )
    assert sections.retry(document(), default) == default


def test_needs_hold_only_what_was_given() -> None:
    read = document(needs={"cpu": 0.5, "memory": "1GiB", "gpu": 0, "labels": ["a100"]})
    assert sections.needs(read) == {"cpu": 0.5, "memory": 1 << 30, "gpu": 0, "labels": ["a100"]}
    assert sections.needs(document()) == {}
    assert said(read) == []


@pytest.mark.parametrize(
    ("source", "becomes"),
    [
        ("hf:org/name", "hf:org/name"),
        ("./weights", "{folder}/weights"),
        ("there", "{folder}/there"),
        ("not-there", "not-there"),
        ("/abs", "/abs"),
        ("${env.W}/x", "${env.W}/x"),
        ("", ""),
    ],
)
def test_a_models_source_that_is_a_path_starts_at_the_workflow(source: str, becomes: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    read = document(models={"m": {"backend": "null", "source": source, "threads": 2, "needs": {"cpu": 1}}})
    model = sections.models(read, sample_operators.host(), lambda path: tmp_path)["m"]
    assert model.source == becomes.replace("{folder}", str(tmp_path))
    assert (model.options, model.needs) == ({"threads": 2}, {"cpu": 1})
    assert said(read) == []


def test_models_of_the_configuration_are_sorted_into_usable_and_broken(tmp_path: Path) -> None:
    known: dict[str, dict[str, Any]] = {
        "a": {"backend": "null"},
        "b": {},
        "c": {"backend": "null", "needs": {"cpu": -1}},
    }
    usable, broken = sections.known_models(known, sample_operators.host(), tmp_path)
    assert list(usable) == ["a"]
    assert broken == {"b": "it names no backend; installed backends: null", "c": "'cpu' must be above 0, not -1"}


def test_triggers_have_defaults() -> None:
    read = document(
        triggers={"cron": [{"schedule": "0 0 * * *"}], "http": [{"path": "/a"}, {"path": "/a", "method": "GET"}]}
    )
    cron, post, get = sections.triggers(read, {})
    assert cron.settings == {
        "schedule": "0 0 * * *",
        "timezone": "UTC",
        "overlap": "skip",
        "catchup": "none",
        "params": {},
    }
    assert [post.settings["method"], get.settings["method"]] == ["POST", "GET"]
    assert said(read) == []


@pytest.mark.parametrize("entries", [{"path": "/a"}, "x", [1]])
def test_triggers_are_lists_of_tables(entries: object) -> None:
    read = document(triggers={"http": entries})
    assert sections.triggers(read, {}) == ()
    assert said(read) == ["triggers.http is a list of tables"]


def test_a_trigger_must_give_what_the_run_needs() -> None:
    declared = {"q": Param(name="q", type="string"), "key": Param(name="key", type="string", secret=True)}
    read = document(triggers={"cron": [{"schedule": "0 0 * * *"}]})
    sections.triggers(read, declared)
    assert said(read) == ["the trigger gives no value to 'q'"]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "the workflow does not say which format it has"),
        ({"sage": True}, "format true is unknown"),
        ({"sage": "1"}, 'format the text "1" is unknown'),
        ({"sage": 1, "name": 3}, "'name' must be a text, not 3"),
        ({"sage": 1, "profile": []}, "'profile' is a table, not a list"),
    ],
)
def test_the_top_of_a_file(tree: dict[str, Any], message: str) -> None:
    read = document(**tree)
    sections.check_top(read)
    assert said(read) == [message]


def test_the_objective_and_the_defaults() -> None:
    assert sections.end_to_end(document(slo={"end_to_end": "1m30s"})) == 90.0
    assert sections.end_to_end(document()) is None
    read = document(defaults={"retries": 3})
    sections.Defaults(read)
    assert said(read) == ["unknown key 'retries' in [defaults]"]
