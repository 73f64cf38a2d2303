"""The processes of the suite `gateway`: the upstream, the load, and a gateway between them."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from sage_bench.gateway.load import Found, Order
from sage_core import SageError

#: Seconds to start.
PATIENCE = 90.0


class Running:
    """A gateway that runs."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, model: str) -> None:
        self._process = process
        self.port = port
        self.model = model
        #: What was wrong with the first answer that was none.
        self.problem = ""

    def cpu(self) -> float:
        """Seconds of processor it has used, with its children."""
        ticks = 0
        for pid in _family(self._process.pid):
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """MiB resident, with its children."""
        kib = 0
        for pid in _family(self._process.pid):
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            kib += int(status.partition("VmRSS:")[2].split()[0])
        return kib / 1024


class Loader:
    """The process that makes load."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, order: Order, meanwhile: Callable[[], None] | None = None) -> Found:
        """Carry an order out; `meanwhile` is called twice a second until it is."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(msgspec.json.encode(order).decode() + "\n")
        self._process.stdin.flush()
        while meanwhile is not None and not select.select([self._process.stdout], [], [], 0.5)[0]:
            meanwhile()
        line = self._process.stdout.readline()
        if not line:
            raise SageError(f"the load generator ended with status {self._process.wait()}")
        return msgspec.json.decode(line, type=Found)


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    except OSError:
        return []
    return [pid, *(member for child in children for member in _family(int(child)))]


def _pinned(core: int, command: Sequence[str]) -> list[str]:
    return ["taskset", "-c", str(core), *command]


@contextmanager
def _ended(process: subprocess.Popen[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()


@contextmanager
def upstream(core: int) -> Iterator[int]:
    """Run the fake upstream; what it gives is its port."""
    command = _pinned(core, [sys.executable, "-m", "sage_bench.gateway.upstream"])
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with _ended(process):
        assert process.stdout
        yield int(process.stdout.readline())


@contextmanager
def loader(core: int) -> Iterator[Loader]:
    """Run what makes the load."""
    command = _pinned(core, [sys.executable, "-m", "sage_bench.gateway.load"])
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with _ended(process):
        yield Loader(process)


@contextmanager
def gateway(
    command: Callable[[int], list[str]], environ: dict[str, str], folder: Path, core: int, load: Loader, model: str
) -> Iterator[Running]:
    """Run a gateway on a free port, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "output.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            _pinned(core, command(port)),
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    with _ended(process):
        until = time.monotonic() + PATIENCE
        while True:
            if _answers(port) and load(Order(port=port, model=model, kind="closed", connections=1, seconds=0.2)).good:
                break
            if process.poll() is not None or time.monotonic() > until:
                said = log.read_text(encoding="utf-8", errors="replace")[-1_000:]
                raise SageError(f"{' '.join(command(port)[:4])} does not answer: {said}")
            time.sleep(0.5)
        yield Running(process, port, model)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
