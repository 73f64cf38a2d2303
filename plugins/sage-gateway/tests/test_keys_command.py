"""`sage keys`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from sage_gateway.keys_command import keys


def test_the_command_adds_lists_and_revokes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    run = CliRunner().invoke
    made = json.loads(run(keys, ["add", "search", "--models", "chat, embed", "--json"]).stdout)
    assert made["key"].startswith("sk-sage-")
    assert made["models"] == ["chat", "embed"]
    listed = run(keys, ["list"]).stdout
    assert made["id"] in listed
    assert made["key"] not in listed
    assert json.loads(run(keys, ["revoke", made["id"][:5], "--json"]).stdout) == {"id": made["id"], "revoked": True}
    assert json.loads(run(keys, ["list", "--json"]).stdout) == []
