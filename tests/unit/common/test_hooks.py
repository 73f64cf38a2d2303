"""Hook implementations are found by their marks; observers hear of an event whatever the others do."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import pytest

from sage_core import Host, PluginError, Run, hookimpl
from sage_core.common import hookspecs
from sage_core.common.hooks import find_hooks, known_hooks

RUN = Run(id="r1", workflow="w", status="succeeded", created_at="2026-01-01T00:00:00Z")


class Offers:
    @hookimpl
    def sage_schedulers(self) -> Mapping[str, str]:
        return {}


class Renamed:
    @hookimpl(specname="sage_operators")
    def offer(self) -> Mapping[str, str]:
        return {"text.a": "module:a"}


def test_every_hookspec_is_known_and_nothing_else() -> None:
    assert set(known_hooks()) == {name for name in vars(hookspecs) if name.startswith("sage_")}


def test_a_function_may_implement_a_hook_under_another_name() -> None:
    plugin = Renamed()
    assert find_hooks("p", plugin) == {"sage_operators": plugin.offer}
    assert list(Host({"p": plugin}).operators) == ["text.a"]


def test_what_implements_nothing_is_refused() -> None:
    with pytest.raises(PluginError, match="plugin 'p': implements no hook"):
        find_hooks("p", object())


class Listening:
    def __init__(self, heard: list[str], name: str, *, fail: bool = False) -> None:
        self._heard, self._name, self._fail = heard, name, fail

    @hookimpl
    def sage_on_run_finished(self, run: Run) -> None:
        self._heard.append(f"{self._name} {run.id}")
        if self._fail:
            raise RuntimeError("deaf")


def test_an_observer_that_fails_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []
    host = Host({"a": Listening(heard, "a"), "b": Listening(heard, "b", fail=True), "c": Listening(heard, "c")})
    with caplog.at_level(logging.WARNING, logger="sage"):
        host.hook.sage_on_run_finished(run=RUN)
    assert heard == ["c r1", "b r1", "a r1"]
    (record,) = caplog.records
    assert vars(record)["sage"] == {"hook": "sage_on_run_finished", "plugin": "b", "error": "RuntimeError: deaf"}


def test_a_misspelt_event_is_suggested() -> None:
    with pytest.raises(AttributeError, match=r"no hook is named 'sage_on_run_finish'\. Did you mean 'sage_on_run_fin"):
        _ = Host({}).hook.sage_on_run_finish


def test_hook_calls_can_be_traced(
    sage_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAGE_TRACE_HOOKS", "1")
    host = Host({"a": Offers(), "b": Listening([], "b")})
    host.hook.sage_on_run_finished(run=RUN)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["sage: hook sage_schedulers()", "sage: hook sage_schedulers answered by [a]"]
    assert lines[2].startswith("sage: hook sage_on_run_finished(run=Run(id='r1'")
    assert lines[3] == "sage: hook sage_on_run_finished answered by [b]"
