"""Tests of sage_core.cli.app."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_core import Host
from sage_core.cli.app import App


def test_a_given_host_is_used() -> None:
    host = Host({})
    assert App(host).host is host


def test_without_one_the_defaults_are_there_and_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_PLUGINS", "")
    app = App()
    assert [each.name for each in app.host.plugins()] == ["builtins"]
    assert app.host is app.host


def test_paths_and_configuration_belong_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sage.toml").write_text("[ports]\ngateway = 9000\n", encoding="utf-8")
    monkeypatch.delenv("SAGE_HOME", raising=False)
    monkeypatch.delenv("SAGE_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    assert App().paths.project == tmp_path / ".sage"
    assert App().config.ports == {"gateway": 9000}
