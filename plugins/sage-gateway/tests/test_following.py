"""A workflow's answer while it is written: what is shown of calls that are made again, and of which steps at all."""

from __future__ import annotations

import importlib
import json
import urllib.request
from typing import Any

import pytest
from openai import OpenAI
from sage_gateway.following import Writing, writer_of
from sage_gateway.testing_project import ProjectFolder

import sage_core.testing.engines as fake
from sage_core.testing import Flows

FLOW = """
sage = 1
name = "talk"
[params]
question = { type = "string" }
[steps.first]
use = "samples.answer"
in = { question = "params.question" }
[steps.reply]
use = "samples.write"
in = { question = "first.text" }
with = { model = "slow" }
[outputs]
answer = "reply.text"
"""
TOML = """
[models.slow]
backend = "fake"
tokens_per_second = 5
"""


def test_pieces_are_shown_as_they_come() -> None:
    writing = Writing()
    assert [writing.add("1", text) for text in ("a", " b", "")] == ["a", " b", ""]
    assert writing.shown == "a b"


def test_a_call_that_is_made_again_first_says_again_what_was_shown() -> None:
    writing = Writing()
    writing.add("1", "a b")
    assert [writing.add("2", text) for text in ("a", " b", " c")] == ["", "", " c"]


def test_nothing_is_shown_of_a_call_that_says_something_else() -> None:
    writing = Writing()
    writing.add("1", "a b")
    assert [writing.add("2", text) for text in ("a", " x", " b")] == ["", "", ""]
    assert writing.shown == "a b"


def test_the_text_of_a_deployed_workflow_comes_while_its_run_is_going_on(project: ProjectFolder) -> None:
    (project.folder / "sage.toml").write_text(TOML)
    project.deploy(FLOW)
    with project.serve() as served, OpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=0) as client:
        said: list[str] = []
        status = ""
        with client.chat.completions.create(
            model="workflow/talk", messages=[{"role": "user", "content": "one two"}], stream=True
        ) as stream:
            run = stream.response.headers["x-sage-run"]
            for chunk in stream:
                if text := chunk.choices[0].delta.content:
                    said.append(text)
                    status = status or run_of(served.url, run)["status"]
        assert said == ["plain", " answer", " to", " one", " two"]
        # The first word was here while four were still to be written.
        assert status == "running"
        assert run_of(served.url, run)["outputs"] == {"answer": "plain answer to one two"}


@pytest.mark.parametrize(
    ("change", "step"),
    [
        (("", ""), "reply"),
        # The text of another column, of an operator that does not promise it, and of several calls.
        (('answer = "reply.text"', 'answer = "first.text"'), ""),
        (('"samples.write"', '"samples.say"'), ""),
        (('with = { model = "slow" }', 'matrix = { model = ["slow"] }'), ""),
        (('answer = "reply.text"', ""), ""),
    ],
)
def test_only_what_one_call_writes_word_for_word_is_shown(
    project: ProjectFolder, change: tuple[str, str], step: str
) -> None:
    flows = Flows(project.folder, {"fake": fake, "samples": importlib.import_module("sage_samples")})
    graph = flows.graph(f'{FLOW}[models.slow]\nbackend = "fake"\n'.replace(*change))
    assert writer_of(graph, "answer") == step


def run_of(url: str, run: str) -> Any:
    with urllib.request.urlopen(f"{url}/sage/v1/runs/{run}", timeout=20) as answer:
        return json.load(answer)
