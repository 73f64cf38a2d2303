from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sage_core.kernel.dataflow import sections
from sage_core.kernel.dataflow.diagnostics import Problems
from sage_core.kernel.dataflow.graph import Param
from sage_core.kernel.dataflow.settings import Settings
from tests.workflows import sample_operators


def document(**tree: Any) -> Settings:
    return Settings(tree, (), Problems())


def said(read: Settings) -> list[str]:
    return [found.message for found in read.problems]


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
        "d": {"backend": ["null"]},
    }
    usable, broken = sections.known_models(known, sample_operators.host(), tmp_path)
    assert list(usable) == ["a"]
    assert broken == {
        "b": "it names no backend; installed backends: null",
        "c": "'cpu' must be above 0, not -1",
        "d": "no backend is named \"['null']\"; Did you mean 'null'? installed backends: null",
    }


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
    sections.top(read)
    assert said(read) == [message]


def test_the_objective_and_the_defaults() -> None:
    read = document(sage=1, slo={"end_to_end": "1m30s"}, defaults={"timeout": "2s", "retry": {"max": 4, "cap": "1m"}})
    assert sections.top(read) == {
        "sage": 1,
        "defaults": {"timeout": 2.0, "retry": {"max": 4, "cap": 60.0}},
        "slo": {"end_to_end": 90.0},
    }
    assert said(read) == []


@pytest.mark.parametrize(
    ("section", "table", "message"),
    [
        ("defaults", {"retries": 3}, "unknown key 'retries' in [defaults]"),
        ("defaults", {"retry": {"most": 3}}, "unknown key 'most' in 'retry'"),
        ("defaults", {"needs": {"gpu": 1}}, "unknown key 'needs' in [defaults]"),
        ("slo", {"ttft": "1s"}, "unknown key 'ttft' in [slo]"),
        ("slo", "2s", "'slo' is a table, not the text \"2s\""),
    ],
)
def test_sections_take_their_own_keys_only(section: str, table: object, message: str) -> None:
    read = document(**{"sage": 1, section: table})
    sections.top(read)
    assert said(read) == [message]
