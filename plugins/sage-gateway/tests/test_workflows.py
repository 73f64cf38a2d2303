"""Deployed workflows: as models, behind paths of their own, and as runs that a tenant sees."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
import sage_gateway.testing as gateways
from openai import BadRequestError, NotFoundError, OpenAI
from sage_gateway.testing import Running
from sage_gateway.testing_project import ASK, SLOW, ProjectFolder, asked

import sage_core.testing.engines as fake
from sage_core.serving import default_host


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
        # A field that is null is one that is not there.
        named: Any = {"params": None, "response_format": {"type": "text"}}
        whole = client.chat.completions.create(model="workflow/ask", messages=messages, extra_body=named)
        assert whole.choices[0].message.content == "kind answer to what is a fence?"
        for wrong, param in (
            ({"params": {"question": "another"}}, "params"),
            ({"params": [1]}, "params"),
            ({"response_format": {"type": "json_object"}}, "response_format"),
        ):
            with pytest.raises(BadRequestError) as refused:
                client.chat.completions.create(model="workflow/ask", messages=messages, extra_body=wrong)
            assert refused.value.param == param
        stream = client.chat.completions.create(
            model="workflow/ask", messages=[{"role": "user", "content": "break"}], stream=True
        )
        with pytest.raises(Exception, match="no answer to that"):
            list(stream)
    status, listed = asked(running, "/sage/v1/runs?workflow=ask")
    assert status == 200
    assert sorted(run["status"] for run in listed["data"]) == ["failed", "succeeded", "succeeded", "succeeded"]


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
