"""A client's link to the engine host: starts the host when nobody listens, and again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from sage_core.common.errors import EngineHostError, SageError
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.records import ModelSpec, Request, Token
from sage_core.kernel.control_plane import frames
from sage_core.kernel.control_plane.replies import Reply

#: Seconds to wait for an engine host that is starting, and between two looks.
PATIENCE, LOOK = 30.0, 0.01


class _Pending(Reply):
    """A request that waits for its answer."""

    __slots__ = ("ask", "retried", "streamed")

    def __init__(self, ask: frames.Ask) -> None:
        super().__init__()
        self.ask = ask
        self.streamed = False
        self.retried = False


class EngineHostLink:
    """One connection to the engine host of a runtime folder; an async context manager.

    It connects with the first request, so that a run which asks no model starts no process. Requests outlive one death
    of the host: those that have streamed nothing are sent once more.
    """

    def __init__(
        self, models: Mapping[str, ModelSpec], paths: Paths, host: Host, *, worker: str = "", patience: float = PATIENCE
    ) -> None:
        self._models = models
        self._paths = paths
        self._host = host
        self._worker = worker
        self._patience = patience
        self._writer: asyncio.StreamWriter | None = None
        self._connecting = asyncio.Lock()
        self._listener: asyncio.Task[None] | None = None
        self._pending: dict[str, _Pending] = {}
        self._stack = contextlib.AsyncExitStack()
        self._child = 0
        #: Process id of the host, for messages and tests; 0 before the first connection.
        self.host_pid = 0

    async def __aenter__(self) -> EngineHostLink:
        self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._fail(EngineHostError("the client was closed"))
        if self._writer is not None:
            self._writer.close()
        if self._listener is not None:
            self._listener.cancel()
        await self._stack.aclose()
        # How the host ended matters to a request that needs it, and to none after the last.
        with contextlib.suppress(EngineHostError):
            self._reap()

    # ------------------------------------------------------------ what clients call

    async def ask(self, request: Request, spec: ModelSpec, *, about: bool = False) -> Any:
        """The answer to any request but a stream; `about` asks only what serves the model."""
        ask = frames.Ask(request=request, about=about)
        pending = await self._send(ask)
        try:
            return frames.unframed(ask, await pending.done)
        finally:
            self._leave(pending)

    async def generate(self, request: Request, spec: ModelSpec) -> AsyncIterator[Token]:
        """Stream the answer; closing the iterator cancels the request."""
        pending = await self._send(frames.Ask(request=request))
        try:
            while (token := await pending.token()) is not None:
                yield token
        finally:
            self._leave(pending)

    # ------------------------------------------------------------ requests

    async def _send(self, ask: frames.Ask) -> _Pending:
        data = frames.pack(ask)
        writer = self._writer or await self._connect()
        pending = self._pending[ask.request.id] = _Pending(ask)
        writer.write(data)
        return pending

    def _leave(self, pending: _Pending) -> None:
        request = pending.ask.request.id
        self._pending.pop(request, None)
        # Cancelling a task cancels the future that it awaits, so a future that is done may be one without an answer.
        unanswered = not pending.done.done() or pending.done.cancelled()
        if unanswered and self._writer is not None:
            self._writer.write(frames.pack(frames.Cancel(id=request)))

    def _take(self, frame: frames.Frame) -> None:
        pending = self._pending.get(getattr(frame, "id", ""))
        if pending is None:
            return
        if isinstance(frame, frames.Piece):
            pending.streamed = True
            pending.push(frame.token)
        elif isinstance(frame, frames.Failed):
            pending.fail(frames.raised(frame))
        else:
            pending.give(frame)

    def _fail(self, error: SageError) -> None:
        for pending in self._pending.values():
            pending.fail(error)

    # ------------------------------------------------------------ the connection

    async def _connect(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._writer is not None:
                return self._writer
            try:
                async with asyncio.timeout(self._patience):
                    while (streams := await self._try()) is None:
                        self._start()
                        await asyncio.sleep(LOOK)
            except TimeoutError:
                raise EngineHostError(f"it did not answer within {self._patience:g} s", str(self._log)) from None
            except OSError as error:
                raise EngineHostError(f"it cannot be started or reached: {error}", str(self._log)) from error
            reader, self._writer = streams
            self._listener = self._tasks.create_task(self._listen(reader, self._writer))
            return self._writer

    async def _try(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        try:
            reader, writer = await asyncio.open_unix_connection(frames.socket_path(self._paths), limit=2**20)
        except (FileNotFoundError, ConnectionError):
            return None
        hello = frames.Hello(
            protocol=frames.PROTOCOL, worker=self._worker, logs=str(self._paths.logs), models=dict(self._models)
        )
        welcome: frames.Frame | None = None
        try:
            writer.write(frames.pack(hello))
            welcome = await frames.read(reader)
        finally:
            if not isinstance(welcome, frames.Welcome):
                writer.close()
        if isinstance(welcome, frames.Failed):
            raise frames.raised(welcome)
        if not isinstance(welcome, frames.Welcome):
            # A host that is leaving closes what it has not greeted.
            return None
        self.host_pid = welcome.pid
        return reader, writer

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (frame := await frames.read(reader)) is not None:
            self._take(frame)
        writer.close()
        self._writer = None
        lost = EngineHostError(f"process {self.host_pid} died while it worked on this request", str(self._log))
        for pending in self._pending.values():
            if pending.streamed or pending.retried:
                pending.fail(lost)
        again = [pending for pending in self._pending.values() if not pending.done.done()]
        if not again:
            return
        try:
            writer = await self._connect()
        except SageError as error:
            self._fail(error)
            return
        for pending in again:
            pending.retried = True
            if not pending.done.done():
                writer.write(frames.pack(pending.ask))

    # ------------------------------------------------------------ the process

    @property
    def _log(self) -> Path:
        return self._paths.logs / "engine-host.log"

    def _start(self) -> None:
        """Start a host unless one that this link started is still coming up; of several, the file lock elects one."""
        if self._child and not self._reap():
            return
        paths = self._paths
        frames.private_folder(frames.socket_path(paths).parent)
        paths.logs.mkdir(parents=True, exist_ok=True)
        plugins = [f"--plugin={name}={module}" for name, module in self._host.modules().items()]
        command = [
            sys.executable, "-P", "-m", "sage_core.kernel.control_plane.host",
            f"--project={paths.project}", f"--data={paths.data}", f"--runtime={paths.runtime}", *plugins,
        ]  # fmt: skip
        # Spawned and not awaited: the host outlives this client when others use it, and its process group ends it.
        self._child = os.posix_spawn(
            sys.executable,
            command,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self._log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )

    def _reap(self) -> bool:
        """Whether the child has ended. Raises `EngineHostError` when it could not start."""
        if not self._child:
            return True
        try:
            pid, status = os.waitpid(self._child, os.WNOHANG)
        except ChildProcessError:
            pid, status = self._child, 0
        if not pid:
            return False
        self._child = 0
        code = os.waitstatus_to_exitcode(status)
        if code > 0:
            raise EngineHostError(f"it ended with exit code {code}", str(self._log))
        return True
