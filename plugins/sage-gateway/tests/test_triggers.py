"""Paths that deployed workflows declare."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest
import sage_gateway.testing as gateways
from sage_gateway.testing import Running
from sage_gateway.testing_project import ASK, SLOW, ProjectFolder, asked

from sage_core.serving import default_host


@pytest.fixture
def running(project: ProjectFolder) -> Iterator[Running]:
    project.deploy(ASK, name="ask.toml")
    project.deploy(SLOW, name="slow.toml")
    host = default_host({"samples": importlib.import_module("sage_samples")})
    with gateways.serving(project.folder, host, {}, {"queues": {"default": {"idle": 1, "max": 1}}}) as running:
        yield running


def test_a_path_of_a_trigger_starts_a_run(running: Running) -> None:
    status, done = asked(running, "/ask", {"question": "why?"}, Prefer="wait=30")
    assert (status, done["status"], done["outputs"]) == (200, "succeeded", {"answer": "kind answer to why?"})
    status, view = asked(running, done["url"])
    assert (status, view["outputs"], view["deployment"]) == (200, done["outputs"], "ask")
    status, done = asked(running, "/ask?question=how%3F&tone=dry", Prefer="wait=30")
    assert done["outputs"] == {"answer": "dry answer to how?"}
    status, begun = asked(running, "/slow", {"question": "x"})
    assert (status, begun["status"]) == (202, "queued")
    assert any(queue["name"] == "default" for queue in asked(running, "/sage/v1/queues")[1]["data"])
    status, ended = asked(running, f"{begun['url']}/cancel", {})
    assert (status, ended["status"], ended["cancelled"]) == (200, "cancelled", True)
    assert asked(running, "/ask", {"colour": 1})[0] == 400
    assert asked(running, "/ask", ["no object"])[0] == 400
    for query, code in (("question=a&question=b", "duplicate_key"), ("question=%ff", "invalid_query")):
        status, told = asked(running, f"/ask?{query}")
        assert (status, told["error"]["code"]) == (400, code)
    assert asked(running, "/ask", {}, method="PUT")[0] == 405
    assert asked(running, "/nowhere", {})[0] == 404
    assert asked(running, "/sage/v1/runs/nothing")[0] == 404
