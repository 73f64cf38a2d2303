"""The shortest way through all of it: `sage serve` starts a real vLLM, which answers a chat, a stream and a schema."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import SAGE

TOML = """
[models.chat]
backend = "vllm"
source = "{source}"
context = 2048
kv_cache = "1GiB"
dtype = "bfloat16"
sequences = 8
"""


class Gateway:
    """`sage serve`, and how it is asked."""

    def __init__(self, folder: Path, toml: str) -> None:
        (folder / "sage.toml").write_text(toml, encoding="utf-8")
        self.process = subprocess.Popen(
            [SAGE, "serve", "--port", "0"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        self.url = next((line.split()[-1] for line in self.process.stdout if line.startswith("sage serve: http")), "")
        assert self.url, f"sage serve ended with status {self.process.wait()}"

    def ask(self, path: str, body: dict[str, Any] | None = None, timeout: float = 600) -> bytes:
        """Fetch a path, or send it JSON."""
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self.url + path, data=data, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=timeout) as answer:
            read: bytes = answer.read()
            return read

    def chat(self, words: str, **fields: Any) -> dict[str, Any]:
        """A chat's whole answer."""
        body = {"model": "chat", "messages": [{"role": "user", "content": words}], **fields}
        answer: dict[str, Any] = json.loads(self.ask("/chat/completions", body))
        return answer

    def close(self) -> int:
        """End it as an operator would, and return its status."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
        return self.process.returncode


@pytest.fixture(scope="module")
def gateway(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    served = Gateway(tmp_path_factory.mktemp("smoke"), TOML.format(source=smollm2))
    yield served
    # A failed test must leave nothing running; the last one ends it itself.
    if served.process.poll() is None:
        served.close()


def test_a_chat_waits_for_the_engine_to_start_and_is_answered(gateway: Gateway) -> None:
    answer = gateway.chat("Say hello.", max_tokens=8)
    assert 0 < answer["usage"]["completion_tokens"] <= 8
    assert answer["choices"][0]["message"]["content"]


def test_a_stream_comes_in_pieces_with_its_usage(gateway: Gateway) -> None:
    body = {
        "model": "chat",
        "messages": [{"role": "user", "content": "Count to ten."}],
        "max_tokens": 12,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    events = gateway.ask("/chat/completions", body).decode().split("\n\n")
    said = [event.removeprefix("data: ") for event in events if event.startswith("data: ")]
    assert said[-1] == "[DONE]"
    assert len(said) > 5
    assert json.loads(said[-2])["usage"]["completion_tokens"] <= 12


def test_an_answer_is_held_to_a_schema(gateway: Gateway) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "green"]}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    answer = gateway.chat("Which colour has grass? Answer as JSON.", max_tokens=40, response_format=form)
    assert json.loads(answer["choices"][0]["message"]["content"])["colour"] in ("red", "green")


def test_what_vllm_refuses_is_an_error_of_the_request(gateway: Gateway) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        gateway.chat("word " * 4_000, max_tokens=8)
    assert caught.value.code == 400
    assert json.loads(caught.value.read())["error"]["message"]


def test_no_server_is_left_when_the_gateway_ends(gateway: Gateway) -> None:
    servers = servers_of(gateway.process.pid)
    assert servers, "no process of vLLM was found to begin with"
    assert gateway.close() == 0
    end = time.monotonic() + 15
    while servers & running().keys():
        assert time.monotonic() < end, "vLLM outlives the gateway"
        time.sleep(0.1)


def running() -> dict[int, tuple[int, int]]:
    """Parent and process group of every process."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, group = file.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if state != "Z":
            found[int(file.parent.name)] = int(parent), int(group)
    return found


def servers_of(gateway: int) -> set[int]:
    """The process groups that a gateway started, whole."""
    all_ = running()
    groups = {pid for pid, (parent, group) in all_.items() if parent == gateway and group == pid}
    return {pid for pid, (_, group) in all_.items() if group in groups}
