"""`sage serve` as a process: what it says, what it takes from sage.toml and signals, and how it ends."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

SERVE = """
import sys
import sage_gateway, sage_core.testing.engines
from sage_core.builtins import default_host
from sage_core.cli.app import App
from sage_core.cli.main import run
host = default_host({"gateway": sage_gateway, "fake": sage_core.testing.engines})
sys.exit(run(sys.argv[1:], App(host)))
"""
MODELS = '[models.echo]\nbackend = "fake"\n'
CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}


class Process:
    """A `sage serve` that says where it is."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.url = self.says("sage serve: http://").removesuffix("/v1")

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._lines.put(line.rstrip())

    def says(self, beginning: str) -> str:
        """Wait for a line; return it without "sage serve: "."""
        while not (line := self._lines.get(timeout=30)).startswith(beginning):
            pass
        return line.removeprefix("sage serve: ")

    def end(self, number: int = signal.SIGINT) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(30)


Start = Callable[..., Process]
on_either_server = pytest.mark.parametrize("server", ["hypercorn", "granian"])


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[Process]:
    env = {**os.environ, "SAGE_HOME": str(folder / "home"), "SAGE_PLUGINS": ""}
    popen = subprocess.Popen(
        [sys.executable, "-c", SERVE, "serve", "--port", "0", *arguments],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield Process(popen)
    finally:
        popen.kill()
        popen.wait()
        if popen.stdout is not None:
            popen.stdout.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    (tmp_path / "sage.toml").write_text(MODELS)
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(started(tmp_path, *arguments))


def failed(folder: Path, *arguments: str) -> tuple[int, str]:
    env = {**os.environ, "SAGE_HOME": str(folder / "home"), "SAGE_PLUGINS": ""}
    done = subprocess.run(
        [sys.executable, "-c", SERVE, "serve", *arguments],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@on_either_server
def test_it_serves_records_and_ends(start: Start, tmp_path: Path, server: str) -> None:
    (tmp_path / "sage.toml").write_text(f'[gateway]\nserver = "{server}"\n{MODELS}')
    process = start("--record", "traffic.jsonl")
    assert process.says("  echo") == "  echo  (fake)"
    client = OpenAI(base_url=f"{process.url}/v1", api_key="anything", max_retries=0)
    assert client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "a b"}]).usage
    assert process.end() == 0
    lines = (tmp_path / "traffic.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["format"] == 1
    assert len(lines) > 3
    (decision,) = (tmp_path / "home/project/logs/decisions.jsonl").read_text().splitlines()
    assert json.loads(decision)["outcome"] == "done"


@on_either_server
def test_sage_toml_is_read_again(start: Start, tmp_path: Path, server: str) -> None:
    tables = f'[gateway]\nserver = "{server}"\n{MODELS}'
    (tmp_path / "sage.toml").write_text(tables)
    process = start()
    (tmp_path / "sage.toml").write_text(tables + '[models.other]\nbackend = "fake"\n')
    process.popen.send_signal(signal.SIGHUP)
    assert process.says("sage serve: sage.toml").endswith("other is served")
    assert [model["id"] for model in httpx.get(f"{process.url}/v1/models").json()["data"]] == ["echo", "other"]
    (tmp_path / "sage.toml").write_text("[models.other")
    process.popen.send_signal(signal.SIGHUP)
    assert "not valid TOML" in process.says("sage serve: sage.toml was not taken")
    assert len(httpx.get(f"{process.url}/v1/models").json()["data"]) == 2
    assert process.end(signal.SIGTERM) == 0


@on_either_server
def test_what_runs_may_end_within_the_grace(start: Start, tmp_path: Path, server: str) -> None:
    (tmp_path / "sage.toml").write_text(f'[gateway]\nserver = "{server}"\n{MODELS}ttft = 1.0\n')
    process = start()
    answers: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: answers.append(httpx.post(f"{process.url}/v1/chat/completions", json=CHAT, timeout=30))
    )
    asking.start()
    while httpx.get(f"{process.url}/sage/v1/pools").json()["data"][0]["engines"]["up"] == 0:
        pass
    assert process.end() == 0
    asking.join(30)
    assert answers[0].json()["choices"][0]["message"]["content"] == "hello"


@on_either_server
def test_a_second_signal_does_not_wait(start: Start, tmp_path: Path, server: str) -> None:
    (tmp_path / "sage.toml").write_text(f'[gateway]\nserver = "{server}"\ngrace = "1h"\n{MODELS}ttft = 3600.0\n')
    process = start()

    def ask() -> None:
        with pytest.raises(httpx.HTTPError):
            httpx.post(f"{process.url}/v1/chat/completions", json=CHAT, timeout=30).raise_for_status()

    asking = threading.Thread(target=ask)
    asking.start()
    while httpx.get(f"{process.url}/sage/v1/pools").json()["data"][0]["engines"]["up"] == 0:
        pass
    process.popen.send_signal(signal.SIGINT)
    process.says("sage serve: ends")
    assert process.end() == 0
    asking.join(30)


def test_without_keys_it_binds_loopback_only(tmp_path: Path) -> None:
    code, said = failed(tmp_path, "--host", "0.0.0.0")
    assert code == 2
    assert "without keys, 0.0.0.0 would let anybody in" in said


def test_a_port_that_is_taken_is_named(start: Start, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    port = start().url.rsplit(":", 1)[1]
    code, said = failed(tmp_path / "other", "--port", port)
    assert code == 1
    assert f"port {port} (gateway) is taken" in said


def test_a_file_can_be_named(start: Start, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "else.toml").write_text('[models.named]\nbackend = "fake"\n')
    process = start("--config", "deep/else.toml")
    assert [model["id"] for model in httpx.get(f"{process.url}/v1/models").json()["data"]] == ["named"]


def test_wrong_settings_are_said_before_anything_is_served(tmp_path: Path) -> None:
    (tmp_path / "sage.toml").write_text("[gateway]\nhots = 1\n")
    code, said = failed(tmp_path)
    assert (code, said) == (2, "Error: [gateway]: Object contains unknown field 'hots'\n")
