"""A server's process: how its start fails, how it ends with whoever started it, and what it leaves to read."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sage_vllm.backend import VllmBackend
from sage_vllm.options import command_line, read_options, variables
from sage_vllm.process import VllmProcess, fetch, free_port

from sage_core import ModelError

from .conftest import Fake, alive, gone, until


def run(body: Any) -> Any:
    return asyncio.run(asyncio.wait_for(body, 30))


def started(fake: Fake, log: Path, **options: Any) -> VllmProcess:
    spec = fake.spec(**options)
    said = read_options(spec)
    line = [str(fake.program), *command_line(spec, said, "cpu")]
    return VllmProcess(spec.name, line, variables(spec, said, "cpu"), log)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("dies", r"ended while it started: loading weights .*no kernel image is available"),
        ("port", r"ended while it started: .*OSError.* Address already in use"),
        ("flag", r"ended while it started: .*unrecognized arguments: --colour .*status 2"),
    ],
)
def test_a_server_that_dies_while_it_starts_says_why(fake: Fake, fault: str, message: str) -> None:
    async def body() -> None:
        async with VllmBackend().open(fake.spec(environment={"FAKE_VLLM": fault})):
            pass

    with pytest.raises(ModelError, match=message):
        run(body())


def test_a_server_that_does_not_become_ready_is_ended(fake: Fake) -> None:
    async def body() -> None:
        async with VllmBackend().open(fake.spec(environment={"FAKE_VLLM": "hangs"}, start=1.0)):
            pass

    with pytest.raises(ModelError, match=r"not ready after 1 s: loading weights\n  help: look into .* start = SECONDS"):
        run(body())
    until(lambda: gone(*fake.seen["pids"]))


def test_a_server_moves_its_weights_and_says_so(fake: Fake, tmp_path: Path) -> None:
    async def body() -> None:
        process = started(fake, tmp_path / "log", sleep=1)
        await process.ready(20)
        assert await process.sleep(1)
        assert await process.wake()
        assert fake.seen["moves"] == "/sleep?level=1 /wake_up"
        os.kill(fake.seen["pids"][0], signal.SIGKILL)
        until(lambda: not process.alive)
        assert not await process.wake()
        await process.end()

    run(body())


def test_a_server_without_the_routes_does_not_sleep(fake: Fake, tmp_path: Path) -> None:
    async def body() -> None:
        process = started(fake, tmp_path / "log")
        await process.ready(20)
        assert not await process.sleep(1)
        await process.end()

    run(body())


def test_what_a_server_does_not_answer_is_an_error(fake: Fake, tmp_path: Path) -> None:
    async def body() -> None:
        process = started(fake, tmp_path / "log")
        await process.ready(20)
        assert "vllm:cache_config_info" in await fetch("chat", process.root + "/metrics", process.key)
        with pytest.raises(ModelError, match=r"does not answer at .*/metrics: ClientResponseError: 401"):
            await fetch("chat", process.root + "/metrics", "")
        await process.end()
        with pytest.raises(ModelError, match=r"does not answer at .*: ClientConnectorError"):
            await fetch("chat", process.root + "/metrics", process.key)

    run(body())


#: Somebody with a server, who waits to be killed.
SERVES = """
import asyncio, sys
from pathlib import Path
from sage_vllm.backend import VllmBackend
from sage_core import ModelSpec

async def body():
    options = {"executable": sys.argv[1]}
    async with VllmBackend().open(ModelSpec(name="chat", backend="vllm", source=sys.argv[2], options=options)):
        print("ready", flush=True)
        await asyncio.sleep(600)

asyncio.run(body())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_sage_leaves_no_server_to_be_found_by_the_next(fake: Fake, how: signal.Signals) -> None:
    line = [sys.executable, "-c", SERVES, str(fake.program), str(fake.weights)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as sage:
        assert sage.stdout is not None
        assert sage.stdout.readline() == "ready\n"
        pids = fake.seen["pids"]
        assert all(alive(pid) for pid in pids)
        sage.send_signal(how)
        until(lambda: gone(*pids))


def test_a_port_is_free_when_it_is_chosen() -> None:
    assert 1_024 < free_port() < 65_536


def test_the_log_of_the_one_before_is_kept(fake: Fake, tmp_path: Path) -> None:
    async def body() -> None:
        for _ in range(2):
            async with VllmBackend().open(fake.spec()):
                pass

    run(body())
    logs = sorted(path.name for path in (tmp_path / "home" / "project" / "logs").iterdir())
    assert logs == ["vllm-chat-1.before.log", "vllm-chat-1.log"]
    assert (tmp_path / "home" / "project" / "logs" / logs[1]).stat().st_mode & 0o077 == 0
