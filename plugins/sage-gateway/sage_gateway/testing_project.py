"""A project on the disk for tests with worker processes: operators of its own, and workflows deployed from it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sage_core.testing import install_wheel
from sage_gateway.testing import Running

OPERATORS = """
import time
from collections.abc import Mapping
from sage_core import Context, hookimpl, operator

@hookimpl
def sage_operators() -> Mapping[str, str]:
    return {f"samples.{name}": f"sage_samples:{name}" for name in ("answer", "slow", "say", "write")}

@operator("samples.answer", returns="text")
def answer(question: str, *, tone: str = "plain") -> str:
    if "break" in question:
        raise ValueError("no answer to that")
    return f"{tone} answer to {question}"

@operator("samples.slow", returns="text")
def slow(question: str, *, seconds: float = 60.0) -> str:
    time.sleep(seconds)
    return question

@operator("samples.write", returns="text", models=("model",), pure=False, streamed="text")
async def write(question: str, *, model: str, ctx: Context) -> str:
    stream = ctx.client.generate(model, [{"role": "user", "content": question}])
    return "".join([token.text async for token in stream])

@operator("samples.say", returns="text", models=("model",), pure=False)
async def say(question: str, *, model: str, ctx: Context) -> str:
    stream = ctx.client.generate(model, [{"role": "user", "content": question}])
    spans = await ctx.client.tokenize(model, [question])
    return f"{len(spans[0])} tokens: " + "".join([token.text async for token in stream])
"""


#: The module of the fake backend, as a plugin.
FAKE = "sage_core.testing.engines"


#: A workflow that answers, and one that takes long.
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


class ProjectFolder:
    """A folder that is SAGE's home, for this process and for those it starts.

    Args:
        monkeypatch: pytest's.
    """

    def __init__(self, folder: Path, monkeypatch: Any) -> None:
        self.folder = folder
        packages = folder / "packages"
        points = {"samples": "sage_samples", "fake": FAKE}
        install_wheel(packages, "sage-samples", {"sage_samples/__init__.py": OPERATORS}, entry_points=points)
        monkeypatch.setenv("SAGE_HOME", str(folder))
        monkeypatch.setenv("PYTHONPATH", str(packages))
        monkeypatch.delenv("SAGE_CONFIG", raising=False)
        monkeypatch.syspath_prepend(str(packages))

    def deploy(self, workflow: str, *options: str, name: str = "flow.toml") -> None:
        """Deploy a workflow, given as the text of its file."""
        (self.folder / name).write_text(workflow)
        self.sage("deploy", name, *options)

    def sage(self, *arguments: str) -> str:
        """Run the command in the project; returns what it printed."""
        command = [sys.executable, "-m", "sage_core.cli", *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def serve(self, *options: str) -> Iterator[Served]:
        """Run `sage serve` on a free port; at the end it is told to leave, and killed if it does not."""
        command = [sys.executable, "-m", "sage_core.cli", "serve", "--port", "0", *options]
        with open(self.folder / "serve.log", "ab") as log:
            process = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        try:
            with process.stdout:
                first = process.stdout.readline()
                while first and "http://" not in first:
                    first = process.stdout.readline()
                if not first:
                    raise RuntimeError((self.folder / "serve.log").read_text())
                yield Served(process, first.split()[-1].removesuffix("/v1"))
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    process.stdout.read()
                process.wait(20)
        finally:
            process.kill()
            process.wait()

    def processes(self, *, but: int = 0) -> list[int]:
        """Every process of this project, by what its environment says: workers and those who look after them."""
        mark = f"SAGE_HOME={self.folder}\0".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) not in (os.getpid(), but):
                try:
                    if mark in (entry / "environ").read_bytes() + b"\0":
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def kill(self, *, but: int = 0) -> int:
        """Kill all of these with SIGKILL; returns how many there were."""
        pids = self.processes(but=but)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return len(pids)


class Served:
    """A gateway in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url


def asked(running: Running, path: str, body: object = None, *, method: str = "", **headers: str) -> tuple[int, Any]:
    """The status and the JSON of an answer; underscores in names of headers stand for hyphens."""
    data = None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"{running.url}{path}", data=data, headers=named, method=method or None)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())
