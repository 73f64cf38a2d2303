"""A real vLLM, its CPU build: installed on first use, two small models made for it, one server of each for all tests.

Nothing here is skipped: where the build or the models cannot be had, the tests end with the installer's error.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sage_vllm.environment import find_program
from sage_vllm.options import command_line, read_options, variables
from sage_vllm.process import VllmProcess

from sage_core import ModelSpec, find_paths

SAGE = Path(sys.executable).with_name("sage")
#: What every chat engine here has: a small cache, short contexts, and no time spent on compiling.
SMALL = {"context": 2_048, "kv_cache": "1GiB", "dtype": "bfloat16", "figures": 1.0}


def sage(*arguments: str) -> Any:
    """Run a command of SAGE and return what it prints; its error is the test's."""
    done = subprocess.run([SAGE, *arguments, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        pytest.exit(f"`sage {' '.join(arguments)}` ended with status {done.returncode}; its message is above", 1)
    return json.loads(done.stdout)


@pytest.fixture(scope="session", autouse=True)
def home() -> Path:
    """SAGE's home with vLLM in it."""
    assert "SAGE_HOME" in os.environ, "these tests keep gigabytes: run tox -e vllm, or set SAGE_HOME"
    sage("vllm", "install", "--cpu")
    return Path(os.environ["SAGE_HOME"])


def added(name: str) -> Path:
    """A packaged model as vLLM reads it."""
    folder = find_paths(Path.cwd()).models / f"vllm-{name}"
    if not (folder / "model.toml").is_file():
        sage("models", "add", folder.name, "--backend", "vllm", "--source", f"package:{name}")
    return folder


@pytest.fixture(scope="session")
def smollm2(home: Path) -> Path:
    """A language model of 135 million parameters."""
    return added("smollm2")


@pytest.fixture(scope="session")
def minilm(home: Path) -> Path:
    """An embedder of 384 dimensions."""
    return added("minilm")


class Server:
    """A server that was started once, for engines that adopt it."""

    def __init__(self, spec: ModelSpec) -> None:
        options = read_options(spec)
        program = find_program(spec.name, "", "cpu", find_paths(Path.cwd()))
        line = [str(program), *command_line(spec, options, "cpu")]
        log = find_paths(Path.cwd()).logs / f"tests-{spec.name}.log"
        self.process = VllmProcess(spec.name, line, variables(spec, options, "cpu"), log)
        asyncio.run(self.process.ready(600))
        self._options: dict[str, Any] = {
            name: spec.options[name] for name in ("kinds", "sequences") if name in spec.options
        }

    @property
    def spec(self) -> ModelSpec:
        """The model, on this server."""
        options = {"base_url": f"{self.process.root}/v1", "api_key": self.process.key, **self._options}
        return ModelSpec(name=self.process.name, backend="vllm", options=options)

    def metric(self, name: str, label: str = "") -> float:
        """A figure that the server counts itself."""
        asked = urllib.request.Request(
            f"{self.process.root}/metrics", headers={"Authorization": f"Bearer {self.process.key}"}
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            text = answer.read().decode()
        lines = re.findall(rf"^{re.escape(name)}\{{(.*)\}} (\S+)$", text, re.MULTILINE)
        return sum(float(value) for labels, value in lines if label in labels)

    def close(self) -> None:
        """End it."""
        asyncio.run(self.process.end())


@pytest.fixture(scope="session")
def chat(smollm2: Path) -> Iterator[Server]:
    """A server of chats."""
    spec = ModelSpec(name="chat", backend="vllm", source=str(smollm2), options={**SMALL, "sequences": 16})
    server = Server(spec)
    yield server
    server.close()


@pytest.fixture(scope="session")
def embedder(minilm: Path) -> Iterator[Server]:
    """A server of vectors, by the pooling runner."""
    options = {"kinds": ["embed"], "dtype": "float32", "kv_cache": "1GiB", "context": 256}
    server = Server(ModelSpec(name="vectors", backend="vllm", source=str(minilm), options=options))
    yield server
    server.close()
