"""Deployed workflows: as models, behind paths of their own, and as runs that a tenant sees."""

from __future__ import annotations

import importlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sage_gateway.testing as gateways
from openai import BadRequestError, NotFoundError, OpenAI
from sage_gateway.keys import KeyFile
from sage_gateway.testing import Running
from sage_gateway.testing_project import ProjectFolder

import sage_core.testing.engines as fake
from sage_core.serving import default_host

ASK = """
sage = 1
name = "ask"
[params]
question = { type = "string" }
tone = { type = "string", default = "kind" }
[steps.reply]
use = "samples.answer"
in = { question = "params.question" }
with = { tone = "${params.tone}" }
[outputs]
answer = "reply.text"
[[triggers.http]]
path = "/ask"
[[triggers.http]]
path = "/ask"
method = "GET"
"""
SLOW = """
sage = 1
name = "slow"
[params]
question = { type = "string" }
[steps.reply]
use = "samples.slow"
in = { question = "params.question" }
[[triggers.http]]
path = "/slow"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProjectFolder:
    return ProjectFolder(tmp_path, monkeypatch)


@pytest.fixture
def running(project: ProjectFolder) -> Iterator[Running]:
    project.deploy(ASK, name="ask.toml")
    project.deploy(SLOW, name="slow.toml")
    host = default_host({"fake": fake, "samples": importlib.import_module("sage_samples")})
    models = {"echo": {"backend": "fake"}}
    with gateways.serving(project.folder, host, models, {"queues": {"default": {"idle": 1, "max": 1}}}) as running:
        yield running


def client_of(running: Running, key: str = "any") -> OpenAI:
    return OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0, timeout=30)


def asked(running: Running, path: str, body: object = None, *, method: str = "", **headers: str) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"{running.url}{path}", data=data, headers=named, method=method or None)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_workflow_is_a_model_that_answers_whole_and_streamed(running: Running) -> None:
    with client_of(running) as client:
        assert [model.id for model in client.models.list()] == ["echo", "workflow/ask", "workflow/slow"]
        assert client.models.retrieve("workflow/ask").id == "workflow/ask"
        messages: Any = [{"role": "user", "content": "first"}, {"role": "user", "content": "what is a fence?"}]
        whole = client.chat.completions.create(
            model="workflow/ask", messages=messages, extra_body={"params": {"tone": "dry"}}
        )
        assert whole.choices[0].message.content == "dry answer to what is a fence?"
        assert whole.choices[0].finish_reason == "stop"
        pieces = list(client.chat.completions.create(model="workflow/ask", messages=messages, stream=True))
        assert "".join(p.choices[0].delta.content or "" for p in pieces) == "kind answer to what is a fence?"
        with pytest.raises(BadRequestError, match="cannot serve 'n'"):
            client.chat.completions.create(model="workflow/ask", messages=messages, n=2)
        with pytest.raises(NotFoundError, match="Did you mean 'workflow/ask'"):
            client.chat.completions.create(model="workflow/asq", messages=messages)
        with pytest.raises(BadRequestError, match="no param 'colour'"):
            client.chat.completions.create(
                model="workflow/ask", messages=messages, extra_body={"params": {"colour": 1}}
            )
        stream = client.chat.completions.create(
            model="workflow/ask", messages=[{"role": "user", "content": "break"}], stream=True
        )
        with pytest.raises(Exception, match="no answer to that"):
            list(stream)
    status, listed = asked(running, "/sage/v1/runs?workflow=ask")
    assert status == 200
    assert sorted(run["status"] for run in listed["data"]) == ["failed", "succeeded", "succeeded"]


def test_who_leaves_a_streamed_workflow_cancels_its_run(running: Running) -> None:
    with client_of(running) as client:
        stream = client.chat.completions.create(
            model="workflow/slow", messages=[{"role": "user", "content": "wait"}], stream=True
        )
        assert next(iter(stream)).choices[0].delta.role == "assistant"
        stream.close()
    ended = time.monotonic() + 20
    while time.monotonic() < ended:
        runs = asked(running, "/sage/v1/runs?workflow=slow")[1]["data"]
        if [run["status"] for run in runs] == ["cancelled"]:
            return
        time.sleep(0.05)
    raise AssertionError(runs)


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
    assert asked(running, "/ask", {}, method="PUT")[0] == 405
    assert asked(running, "/nowhere", {})[0] == 404
    assert asked(running, "/sage/v1/runs/nothing")[0] == 404


def test_a_tenant_sees_its_own_runs_and_changes_nothing(project: ProjectFolder) -> None:
    project.deploy(ASK)
    file = KeyFile(project.folder / "project" / "keys.json")
    mine, _ = file.add(tenant="mine")
    other, _ = file.add(tenant="other")
    bound, _ = file.add(tenant="bound", models=("echo",))
    admin, _ = file.add(tenant="ops", admin=True)
    host = default_host({"fake": fake, "samples": importlib.import_module("sage_samples")})
    with gateways.serving(project.folder, host, {}, {"queues": {"default": {"idle": 1, "max": 1}}}) as running:

        def as_(key: str) -> dict[str, str]:
            return {"Authorization": f"Bearer {key}"}

        status, begun = asked(running, "/ask", {"question": "why?"}, **as_(mine))
        assert status == 202
        assert asked(running, begun["url"], **as_(mine))[0] == 200
        assert asked(running, begun["url"], **as_(other))[0] == 404
        assert asked(running, begun["url"], **as_(admin))[1]["tenant"] == "mine"
        assert asked(running, "/sage/v1/runs", **as_(other))[1]["data"] == []
        assert len(asked(running, "/sage/v1/runs", **as_(mine))[1]["data"]) == 1
        assert asked(running, f"{begun['url']}/cancel", {}, **as_(mine))[0] == 403
        assert asked(running, "/ask", {"question": "why?"}, **as_(bound))[0] == 403
        assert asked(running, "/sage/v1/runs")[0] == 401
        with client_of(running, bound) as client:
            assert list(client.models.list()) == []
