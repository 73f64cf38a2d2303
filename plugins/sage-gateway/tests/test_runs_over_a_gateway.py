"""A run whose model calls go over a gateway: each decision names its run and step, and has what is left of its time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sage_gateway.testing import Running, serving
from sage_gateway.testing_project import ProjectFolder

import sage_core.testing.engines as fake
from sage_core.serving import default_host

FLOW = """
sage = 1
name = "say"
[params]
question = { type = "string" }
[models.echo]
backend = "fake"
[slo]
end_to_end = "60s"
[steps.reply]
use = "samples.say"
in = { question = "params.question" }
with = { model = "echo" }
[outputs]
answer = "reply.text"
"""
SECOND = 1_000_000_000


def lines_of(running: Running) -> list[Any]:
    return running.call(lambda: [line for lines in running.gateway.decisions.values() for line in lines])


def test_a_runs_calls_carry_run_step_and_what_is_left_of_its_time(
    project: ProjectFolder, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.folder / "flow.toml").write_text(FLOW)
    # The gateway is another deployment: neither its folder nor its socket is the run's.
    elsewhere: Path = tmp_path_factory.mktemp("elsewhere")
    with serving(elsewhere, default_host({"fake": fake}), {"echo": {"backend": "fake"}}) as running:
        monkeypatch.setenv("SAGE_GATEWAY_URL", running.url)
        told = json.loads(project.sage("run", "flow.toml", "-p", "question=one two", "--json"))
        assert told["outputs"] == {"answer": "2 tokens: one two"}
        lines = lines_of(running)
        assert [(line.kind, line.run, line.step) for line in lines] == [
            ("tokenize", told["run_id"], "reply"),
            ("generate", told["run_id"], "reply"),
        ]
        assert all(line.worker and line.worker != line.request for line in lines)
        assert all(0 < line.deadline <= 60 * SECOND for line in lines)
        # What `sage explain` reads is the gateway's log.
        command = [sys.executable, "-m", "sage_core.cli", "explain", "request", lines[1].request]
        monkeypatch.setenv("SAGE_HOME", str(elsewhere))
        done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, timeout=60, check=False)
    assert f"run {told['run_id']}, step reply" in done.stdout, done.stderr
