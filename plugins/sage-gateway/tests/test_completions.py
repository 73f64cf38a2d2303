from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from openai import OpenAI
from sage_gateway.testing import Running

Serve = Callable[..., Running]


@pytest.fixture(params=["fake", "plain"])
def client(request: pytest.FixtureRequest, serve: Serve) -> OpenAI:
    running = serve({"echo": {"backend": request.param, "sequences": 8}})
    return OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0, timeout=20)


def test_a_text_is_continued(client: OpenAI) -> None:
    said = client.completions.create(model="echo", prompt="one two three")
    assert (said.choices[0].text, said.choices[0].finish_reason) == ("one two three", "stop")
    assert said.object == "text_completion"
    assert said.usage
    assert said.usage.completion_tokens == 3


def test_a_stream(client: OpenAI) -> None:
    pieces = list(client.completions.create(model="echo", prompt="one two three", stream=True, stop="three"))
    assert "".join(piece.choices[0].text for piece in pieces) == "one two "
    assert [piece.usage for piece in pieces if piece.usage] == []


def test_token_ids_go_to_an_engine_that_reads_them(serve: Serve) -> None:
    running = serve({"echo": {"backend": "fake"}, "plain": {"backend": "plain"}})
    body = b'{"model": "echo", "prompt": [[1, 2], [3]]}'
    httpx.post(f"{running.url}/v1/completions", content=body)
    assert running.engine("echo").bodies == [body]
    answer = httpx.post(f"{running.url}/v1/completions", json={"model": "plain", "prompt": [1, 2]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")


def test_a_mixed_prompt(client: OpenAI) -> None:
    answer = httpx.post(f"{client.base_url}completions", json={"model": "echo", "prompt": ["a", 1]})
    assert answer.json()["error"]["message"] == "prompt mixes texts and token ids"
