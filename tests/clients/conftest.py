"""`sage serve` as users start it, before a fake upstream: what other people's clients are pointed at."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from sage_core.testing import FakeOptions, FakeUpstream

# `tox -e clients` has all of them.
collect_ignore = [
    f"test_{name}.py"
    for name, package in (("langchain", "langchain_openai"), ("llama_index", "llama_index"))
    if not find_spec(package)
]
CONFIG = """\
[models.chat]
backend = "openai"
base_url = "{quick}"
sequences = 64
health = 0

[models.slow]
backend = "openai"
base_url = "{slow}"
sequences = 64
health = 0

[models.vectors]
backend = "openai"
base_url = "{quick}"
kinds = ["embed", "rerank"]
health = 0

[queues.batches]
max = 1
idle = 1
"""


class Upstream:
    """A fake upstream on a loop of its own."""

    def __init__(self, fake: FakeUpstream, loop: asyncio.AbstractEventLoop) -> None:
        self.fake = fake
        self._loop = loop

    def wait_for(self, cancelled: int) -> None:
        """Return when so many calls were closed before their end."""

        async def reached() -> None:
            while self.fake.engine.cancelled < cancelled:  # noqa: ASYNC110 - the fake counts and tells nobody
                await asyncio.sleep(0.01)

        asyncio.run_coroutine_threadsafe(asyncio.wait_for(reached(), 10), self._loop).result(15)


@contextmanager
def upstream(options: FakeOptions) -> Iterator[Upstream]:
    """Run one in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="upstream")
    thread.start()
    fake = FakeUpstream(options, models=("chat", "slow", "vectors"))
    try:
        asyncio.run_coroutine_threadsafe(fake.start(), loop).result(10)
        yield Upstream(fake, loop)
        asyncio.run_coroutine_threadsafe(fake.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture(scope="session")
def quick() -> Iterator[Upstream]:
    """Answers at once: the models `chat` and `vectors`."""
    with upstream(FakeOptions(sequences=100)) as running:
        yield running


@pytest.fixture(scope="session")
def slow() -> Iterator[Upstream]:
    """Writes five words a second: the model `slow`."""
    with upstream(FakeOptions(sequences=100, tokens_per_second=5)) as running:
        yield running


@pytest.fixture(scope="session")
def url(quick: Upstream, slow: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base address of a gateway in a process of its own."""
    folder: Path = tmp_path_factory.mktemp("gateway")
    (folder / "sage.toml").write_text(CONFIG.format(quick=quick.fake.url, slow=slow.fake.url), encoding="utf-8")
    environ = {**os.environ, "SAGE_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "sage_core.cli", "serve", "--port", "0"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout
        first = process.stdout.readline()
        assert "http://" in first, first + (folder / "log").read_text(encoding="utf-8")
        yield first.split()[-1]
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0


@pytest.fixture(autouse=True)
def healthy(quick: Upstream, slow: Upstream) -> Iterator[None]:
    """No fault outlives its test."""
    yield
    quick.fake.fault = slow.fake.fault = ""
