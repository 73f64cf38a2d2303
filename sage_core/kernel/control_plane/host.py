"""The engine-host process: one control plane and one copy of each model for all workers of a runtime folder.

It is elected by a file lock, serves a Unix socket, and leaves shortly after its last client.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import importlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

from sage_core.common.config import Config, load_config
from sage_core.common.errors import EngineHostError, ModelError, SageError
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.records import ModelSpec, Request, Token
from sage_core.common.telemetry import log, log_to_stderr
from sage_core.kernel.control_plane import events, frames
from sage_core.kernel.control_plane.decisions import DecisionLog
from sage_core.kernel.control_plane.driver import Driver, Sink
from sage_core.kernel.control_plane.inline import build_manager, decision_sink
from sage_core.kernel.control_plane.model_specs import engine_needs
from sage_core.kernel.scheduler.holdings import holdings_path, tell

#: Seconds a host without clients stays: after the last one left, and for the first one to come.
IDLE, FIRST = 0.5, 10.0


class EngineHost:
    """Serves one driver to the clients of a socket.

    Args:
        idle: seconds it stays without clients; None is for ever.
        own: folder of the decision log for requests that this process makes itself; None where it makes none.
    """

    def __init__(self, *, idle: float | None = IDLE, own: Path | None = None) -> None:
        self.driver: Driver
        self._idle = idle
        self._own = own
        self._clients: set[asyncio.Task[None]] = set()
        self._logs: dict[str, DecisionLog] = {}
        self._log_of: dict[str, DecisionLog] = {}
        self._leave = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        #: Told of each piece that the calls of a run's step are answered with, and of the request it belongs to.
        self.listeners: dict[tuple[str, str], Callable[[str, Token], object]] = {}

    def log_of(self, request: Request) -> DecisionLog:
        """The decision log of the project that a request came from."""
        if self._own is None or request.id in self._log_of:
            return self._log_of[request.id]
        return self.open_log(str(self._own))

    async def serve(self, path: Path) -> None:
        """Listen until nobody is left, or until `leave`."""
        server = await asyncio.start_unix_server(self._accept, path, limit=2**20)
        log("engine_host_listens", socket=path, pid=os.getpid())
        self._wait_for_clients(FIRST)
        try:
            await self._leave.wait()
        finally:
            # Unlinked first: whoever comes from here on finds nobody, and starts the next host.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            server.close()
            for task in list(self._clients):
                task.cancel()
            await asyncio.gather(*self._clients, return_exceptions=True)
            for each in self._logs.values():
                each.close()

    def leave(self) -> None:
        """End `serve`."""
        self._leave.set()

    def _wait_for_clients(self, least: float = 0.0) -> None:
        if self._idle is not None:
            self._timer = asyncio.get_running_loop().call_later(max(self._idle, least), self.leave)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        if self._timer is not None:
            self._timer.cancel()
        try:
            await _Connection(self, reader, writer).run()
        except asyncio.CancelledError:
            pass  # The server's own task: nobody awaits it, and a cancelled one would be reported as an error.
        finally:
            writer.close()
            self._clients.discard(task)
            if not self._clients:
                self._wait_for_clients()

    def open_log(self, folder: str) -> DecisionLog:
        """One log object for each folder."""
        if folder not in self._logs:
            self._logs[folder] = DecisionLog(Path(folder))
        return self._logs[folder]

    @contextlib.contextmanager
    def logged(self, request: str, to: DecisionLog) -> Iterator[None]:
        """Say where a live request's decisions go."""
        self._log_of[request] = to
        try:
            yield
        finally:
            # The last line may be written after the answer: in the same instant, never after this turn of the loop.
            asyncio.get_running_loop().call_soon(self._log_of.pop, request, None)


class _Connection:
    """One client: its models, and its requests as tasks that end with it."""

    def __init__(self, host: EngineHost, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host = host
        self._reader = reader
        self._writer = writer
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        hello = await frames.read(self._reader)
        if not isinstance(hello, frames.Hello):
            return
        if hello.protocol != frames.PROTOCOL:
            error = EngineHostError(
                f"process {os.getpid()} serves another version of SAGE; it leaves with its last client"
            )
            self._write(frames.failure("", "", error))
            return
        self._hello = hello
        self._decisions = self._host.open_log(hello.logs)
        self._write(frames.Welcome(protocol=frames.PROTOCOL, pid=os.getpid()))
        try:
            async with asyncio.TaskGroup() as group:
                while (frame := await frames.read(self._reader)) is not None:
                    self._take(frame, group)
                for task in self._tasks.values():
                    task.cancel()
        finally:
            log("client_left", worker=hello.worker)

    def _take(self, frame: frames.Frame, group: asyncio.TaskGroup) -> None:
        if isinstance(frame, frames.Ask):
            request = frame.request.id
            if request not in self._tasks:
                task = self._tasks[request] = group.create_task(self._serve(frame))
                task.add_done_callback(lambda _: self._tasks.pop(request, None))
        elif isinstance(frame, frames.Cancel) and frame.id in self._tasks:
            self._tasks[frame.id].cancel()

    async def _serve(self, ask: frames.Ask) -> None:
        request = ask.request
        try:
            if request.model not in self._hello.models:
                raise ModelError(request.model, "this client has not registered it")
            with self._host.logged(request.id, self._decisions):
                await self._answer(ask)
        except Exception as error:  # noqa: BLE001 - every error belongs to the request, and travels to whoever made it
            self._write(frames.failure(request.id, request.model, error))
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def _answer(self, ask: frames.Ask) -> None:
        request, driver = ask.request, self._host.driver
        spec = self._hello.models[request.model]
        if request.kind != "generate" or ask.about:
            self._write(frames.answered(request.id, await driver.ask(request, spec, about=ask.about)))
            return
        listener = self._host.listeners.get((request.caller.run, request.caller.step))
        async with contextlib.aclosing(driver.generate(request, spec)) as stream:
            async for token in stream:
                self._write(frames.Piece(id=request.id, token=token))
                if listener is not None:
                    listener(request.id, token)
                # A slow reader holds up its own stream only.
                await self._writer.drain()
        self._write(frames.Answer(id=request.id))

    def _write(self, frame: frames.Frame) -> None:
        self._writer.write(frames.pack(frame))


@contextlib.asynccontextmanager
async def engine_host(
    host: Host,
    paths: Paths,
    *,
    idle: float | None = IDLE,
    config: Config | None = None,
    record: Callable[[events.Instant], None] | None = None,
    watch: Sink = lambda decisions: None,
) -> AsyncIterator[EngineHost]:
    """Run the control plane that every run of a runtime folder attaches to; whoever calls this has been `elected`.

    Args:
        idle: see `EngineHost`.
        config: sage.toml; None reads the project's.
        record: see `Driver`.
        watch: called with the decisions of each instant, after they are logged.
    """
    service = EngineHost(idle=idle, own=paths.logs)

    def held(models: Sequence[ModelSpec]) -> None:
        try:
            tell(holdings_path(paths), [(spec.name, engine_needs(spec)) for spec in models])
        except (OSError, SageError) as error:
            # The ledger then takes these engines for nothing; they serve all the same.
            log("holdings_not_told", error=error)

    paths.runtime.mkdir(parents=True, exist_ok=True)
    manager = build_manager(host, config or load_config(paths.project.parent))
    logged = decision_sink(host, service.log_of)

    def sink(decisions: Sequence[tuple[Request, events.Decided]]) -> None:
        logged(decisions)
        watch(decisions)

    async with Driver(manager, host.backends, sink=sink, record=record, held=held) as driver:
        service.driver = driver
        yield service


async def _run(host: Host, paths: Paths, path: Path, idle: float) -> None:
    async with engine_host(host, paths, idle=idle) as service:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, service.leave)
        # Ctrl-C reaches the whole process group; the clients end what they must, and this process follows the last one.
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        await service.serve(path)


def elected(lock: Path) -> Callable[[], None] | None:
    """Take the lock that makes this process the engine host, and return its release; None when another holds it."""
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        # The host before this one may have removed the file after it was opened here: its lock would bind nobody.
        if lock.exists() and os.path.samestat(os.fstat(file), lock.stat()):
            break
        os.close(file)
    # For people and tools that want to know who holds it; the lock itself is what counts.
    os.ftruncate(file, 0)
    os.write(file, f"{os.getpid()}\n".encode())

    def release() -> None:
        lock.unlink(missing_ok=True)
        os.close(file)

    return release


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the engine host; exit code 0 also when another process is it already."""
    parser = argparse.ArgumentParser(prog="sage engine-host", description=__doc__)
    for folder in ("project", "data", "runtime"):
        parser.add_argument(f"--{folder}", type=Path, required=True)
    parser.add_argument("--idle", type=float, default=IDLE, help="seconds to stay without clients")
    parser.add_argument("--plugin", action="append", default=[], metavar="NAME=MODULE")
    options = parser.parse_args(arguments)
    log_to_stderr()
    paths = Paths(project=options.project, data=options.data, runtime=options.runtime)
    path = frames.socket_path(paths)
    frames.private_folder(path.parent)
    release = elected(path.with_suffix(".lock"))
    if release is None:
        return 0
    try:
        path.unlink(missing_ok=True)
        modules = {name: importlib.import_module(module) for name, module in (p.split("=", 1) for p in options.plugin)}
        defaults = modules.pop("builtins", None)
        asyncio.run(_run(Host(modules, builtins=defaults), paths, path, options.idle))
    finally:
        holdings_path(paths).unlink(missing_ok=True)
        release()
    return 0


if __name__ == "__main__":
    sys.exit(main())
