"""One ``vllm serve`` as a child: started, watched until it is ready, asleep or awake, and ended with this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from sage_core import ModelError, log
from sage_vllm import keeper
from sage_vllm.inside import sage_vllm_guard

#: Seconds between two looks at a server that starts, or at whether one lives; and between two words about it.
LOOK, WORD = 0.25, 10.0
#: Seconds a server gets to end by itself.
GRACE = 10.0
#: Seconds to move the weights out of a GPU's memory, or back.
MOVE = 120.0
#: The last lines of a log that an error quotes.
_QUOTED = 4
#: Bytes of a log; twice as much is kept.
_LOGGED = 32 * 2**20


class VllmProcess:
    """A server of our own, on a free loopback port, with a key that nobody else has.

    Args:
        command: the program and its arguments, without host and port.
        variables: what its environment says beside this process's.
        output: where it writes.
    """

    def __init__(self, name: str, command: list[str], variables: Mapping[str, str], output: Path) -> None:
        self.name = name
        self.log = output
        self.key = secrets.token_urlsafe(24)
        self.port = free_port()
        self.root = f"http://127.0.0.1:{self.port}"
        # A key on the command line could be read by everybody on the machine.
        mine = {sage_vllm_guard.KEY: self.key, "PYTHONPATH": str(Path(sage_vllm_guard.__file__).parent)}
        # A key of the user's, for a server of their own, is none that this one may ask for.
        mine["VLLM_API_KEY"] = self.key
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SAGE_", "VIRTUAL_"))
        }
        line = [sys.executable, "-I", keeper.__file__, str(GRACE), str(_LOGGED), str(output), *command]
        line += ["--host", "127.0.0.1", "--port", str(self.port)]
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.exists():
            # What the one before it said last is often the reason for this one.
            output.replace(keeper.before(str(output)))
        with open(os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), "wb") as written:
            self._child = subprocess.Popen(
                line,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=written,
                env={**kept, **variables, **mine},
                start_new_session=True,
            )
        log("vllm_started", model=name, pid=self._child.pid, port=self.port, log=output)

    @property
    def pid(self) -> int:
        """The keeper's, which is also the process group's."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        if self._child.returncode is not None or not hasattr(os, "waitid"):
            return self._child.poll() is None
        # Not waited for yet: see `_gone`.
        return os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    async def ready(self, seconds: float) -> None:
        """Wait until it answers; raises `ModelError` when it ends, or takes longer."""
        began = told = time.monotonic()
        async with _session(self.key) as session:
            while not await self._answers(session, "/health"):
                now = time.monotonic()
                if not self.alive:
                    raise self._ended("ended while it started")
                if now - began > seconds:
                    help = f"look into {self.log}, or set start = SECONDS in [models.{self.name}]"
                    raise ModelError(self.name, f"vLLM was not ready after {seconds:g} s: {self.said()}", help)
                if now - told > WORD:
                    told = now
                    log("vllm_starting", model=self.name, seconds=round(now - began), said=self.said(1))
                await asyncio.sleep(LOOK)
        log("vllm_ready", model=self.name, seconds=round(time.monotonic() - began, 1), port=self.port)

    async def died(self) -> None:
        """Wait for its end, and raise it as `ModelError`."""
        assert self._child.stdout is not None
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        end = self._child.stdout.fileno()
        # The keeper writes nothing: what can be read is the end of the pipe, which it alone held open.
        loop.add_reader(end, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(end)
        raise self._ended("ended")

    async def sleep(self, level: int) -> bool:
        """Have it move its weights out of its GPUs; false when it did not."""
        return await self._move(f"/sleep?level={level}") is not None

    async def wake(self) -> bool:
        """Have it move them back; false when it did not, or not all of them."""
        said = await self._move("/wake_up")
        return said is not None and b'"sleeping"' not in said

    async def _move(self, path: str) -> bytes | None:
        """What it answers, which is nothing in versions before 0.32; None where it did not."""
        try:
            async with _session(self.key, MOVE) as session, session.post(self.root + path) as answer:
                return await answer.read() if answer.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    async def end(self) -> None:
        """End it; when this returns, its children have ended or been killed."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        # The keeper needs that long at most, and kills the group at last.
        await asyncio.to_thread(self._gone)
        assert self._child.stdout is not None
        self._child.stdout.close()
        log("vllm_ended", model=self.name, pid=self._child.pid)

    def _gone(self) -> None:
        if self._child.returncode is None and hasattr(os, "waitid"):
            # A keeper that was killed left others behind; until it is waited for, the group keeps its number.
            os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()

    def said(self, lines: int = _QUOTED) -> str:
        """The last lines of its log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 8_192))
                text = file.read().decode("utf-8", "replace")
        except OSError as error:
            return f"(no log: {error})"
        return " | ".join([line.strip()[:300] for line in text.splitlines() if line.strip()][-lines:])

    def _ended(self, what: str) -> ModelError:
        return ModelError(self.name, f"vLLM {what}: {self.said()}", f"all of it is in {self.log}")

    async def _answers(self, session: aiohttp.ClientSession, path: str) -> bool:
        try:
            async with session.get(self.root + path, timeout=aiohttp.ClientTimeout(total=5.0)) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False


async def fetch(name: str, url: str, key: str) -> str:
    """Fetch a text from a model's server; raises `ModelError`."""
    async with _session(key) as session:
        try:
            async with session.get(url, raise_for_status=True) as answer:
                return await answer.text()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise ModelError(name, f"vLLM does not answer at {url}: {type(error).__name__}: {error}") from None


def _session(key: str, seconds: float = 10.0) -> aiohttp.ClientSession:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=seconds), trust_env=False)


def free_port() -> int:
    """A loopback port that nobody listens on; where somebody is quicker than vLLM, it ends and is started again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
