"""The project folder that tests with workers stand on: its commands, its gateway, and what it kills."""

from __future__ import annotations

import httpx
import pytest
from sage_gateway.testing_project import ASK, ProjectFolder


def test_a_workflow_is_deployed_served_and_its_processes_are_found_and_killed(project: ProjectFolder) -> None:
    project.deploy(ASK)
    with project.serve() as served:
        assert served.process.pid in project.processes()
        assert served.process.pid not in project.processes(but=served.process.pid)
        answer = httpx.post(
            f"{served.url}/ask", json={"question": "why"}, headers={"prefer": "wait=30"}, timeout=40
        ).json()
        assert answer["outputs"] == {"answer": "kind answer to why"}
    assert served.process.returncode == 0
    project.kill()
    assert not [pid for pid in project.processes() if pid == served.process.pid]


def test_a_gateway_that_cannot_start_says_why(project: ProjectFolder) -> None:
    (project.folder / "sage.toml").write_text("[gateway]\nhots = 1\n")
    with pytest.raises(RuntimeError, match="unknown field 'hots'"), project.serve():
        pass
    with pytest.raises(AssertionError, match="No command is named 'no-such-command'"):
        project.sage("no-such-command")
