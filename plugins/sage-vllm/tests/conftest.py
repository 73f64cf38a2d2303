"""A `vllm` program to start, and a folder of weights that it does not read."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage_core import ModelSpec

FAKE = Path(__file__).with_name("fake_vllm.py")


class Fake:
    """A fake program, its weights, and what it noted about itself."""

    def __init__(self, folder: Path) -> None:
        self.weights = folder / "weights"
        self.weights.mkdir()
        (self.weights / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
        (self.weights / "model.safetensors").write_bytes(b"\0" * 64)
        self.program = folder / "vllm"
        self.program.write_text(f"#!{sys.executable}\n" + FAKE.read_text(encoding="utf-8"))
        self.program.chmod(0o755)

    def spec(self, name: str = "chat", needs: dict[str, Any] | None = None, **options: Any) -> ModelSpec:
        """A model that the fake serves."""
        given = {"executable": str(self.program), "figures": 0, **options}
        return ModelSpec(name=name, backend="vllm", source=str(self.weights), options=given, needs=needs or {})

    @property
    def seen(self) -> dict[str, Any]:
        """What it noted."""
        noted: dict[str, Any] = json.loads((self.weights / "seen.json.txt").read_text())
        return noted

    def noted(self, key: str) -> Any:
        """Wait until it has noted something."""
        return until(lambda: self.seen.get(key) if (self.weights / "seen.json.txt").exists() else None)


def until(look: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "it did not happen"
        os.sched_yield()
    return found


async def eventually(look: Callable[[], Any]) -> Any:
    """`until`, on a loop that others use meanwhile; the test's own limit ends it."""
    while not (found := look()):  # noqa: ASYNC110 - another process does it, and tells nobody
        await asyncio.sleep(0.01)
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(*pids: int) -> bool:
    """Whether none of them runs."""
    return not any(alive(pid) for pid in pids)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """A fake program, in a home of its own."""
    monkeypatch.setenv("SAGE_HOME", str(tmp_path / "home"))
    return Fake(tmp_path)
