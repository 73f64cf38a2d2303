"""A gateway for tests: the real application on a real Hypercorn on a free loopback port, in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sage_core import Host, ModelSpec, Paths, hookimpl
from sage_core.serving import Config, engine_host, seconds
from sage_core.testing import FakeBackend, FakeEngine
from sage_gateway.gateway import Gateway
from sage_gateway.routes import create_app
from sage_gateway.server import bound, listen
from sage_gateway.settings import read_settings

T = TypeVar("T")
#: Seconds for a gateway to start, answer a call from the test, or end.
PATIENCE = 20.0


class Running:
    """A gateway that serves."""

    def __init__(self, gateway: Gateway, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.gateway = gateway
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._loop = loop

    def call(self, function: Callable[[], T]) -> T:
        """Run a function on the gateway's own loop, the only place where its state may be looked at."""

        async def run() -> T:
            return function()

        return self.wait(run())

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the gateway's own loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    def engine(self, model: str) -> Any:
        """The open engine of a model, for tests that look into a fake."""
        return self.call(lambda: self.engine_now(model))

    def engine_now(self, model: str) -> Any:
        """The same on the gateway's own loop."""
        info = self.gateway.info(model)
        if info is None:
            raise LookupError(f"no engine of {model!r} is open")
        return self.gateway.driver.pools.engine(info.id)

    def send(self, path: str, body: object) -> socket.socket:
        """A connection on which a request has been sent, and nothing is read."""
        data = msgspec.json.encode(body)
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        sock.sendall(b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (path.encode(), len(data)) + data)
        return sock

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait until something is so on the gateway's loop."""

        async def wait() -> None:
            async with asyncio.timeout(PATIENCE - 1):
                while not reached():  # noqa: ASYNC110 - what is waited for is told to nobody
                    await asyncio.sleep(0.005)

        self.wait(wait())

    def busy(self, model: str) -> None:
        """Wait until a fake engine of a model works on something."""
        self.until(lambda: self.gateway.info(model) is not None and self.engine_now(model).running > 0)

    def settled(self) -> bool:
        """Whether the control plane comes to hold nothing: each request has ended and each credit is back."""

        async def rest() -> bool:
            for _ in range(round(PATIENCE / 0.01)):
                if not self.gateway.driver.manager.held:
                    return True
                await asyncio.sleep(0.01)
            return False

        return self.wait(rest())


@hookimpl
def sage_backends() -> Mapping[str, str]:
    """The backend ``plain``: a fake that writes tokens and does not know OpenAI's JSON."""
    return {"plain": f"{__name__}:PlainBackend"}


class PlainBackend:
    """`FakeBackend` without `forward`."""

    def __init__(self) -> None:
        self._fake = FakeBackend()

    def identify(self, model: ModelSpec) -> str:
        return self._fake.identify(model)

    @asynccontextmanager
    async def open(self, model: ModelSpec) -> AsyncIterator[PlainEngine]:
        async with self._fake.open(model) as engine:
            yield PlainEngine(engine)


class PlainEngine:
    """A `FakeEngine` whose `forward` is not there."""

    def __init__(self, engine: FakeEngine) -> None:
        self.fake = engine

    def __getattr__(self, name: str) -> Any:
        if name == "forward":
            raise AttributeError(name)
        return getattr(self.fake, name)


@contextmanager
def serving(
    folder: Path, host: Host, models: Mapping[str, Any], tables: Mapping[str, Any] | None = None
) -> Iterator[Running]:
    """Serve `models` and other tables of sage.toml, keeping everything below `folder`."""
    paths = Paths(project=folder / "project", data=folder / "data", runtime=folder / "run")
    config = msgspec.convert({"models": dict(models), **(tables or {})}, Config)
    config.gateway.setdefault("grace", "1s")
    gateway = Gateway(host, config, paths, read_settings(config.gateway))
    loop = asyncio.new_event_loop()
    stop, ready = asyncio.Event(), threading.Event()
    errors: list[BaseException] = []
    sock = bound("127.0.0.1", 0, unread=seconds(gateway.settings.write_timeout))
    port: int = sock.getsockname()[1]

    async def main() -> None:
        async with engine_host(
            host, paths, idle=None, config=config, record=gateway.recorded(None), watch=gateway.observe
        ) as service:
            gateway.open(service)
            gateway.announce(f"http://127.0.0.1:{port}")
            sock.listen(128)
            ready.set()
            try:
                await listen(create_app(gateway), sock, stop, gateway.settings)
            finally:
                gateway.close()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(main())
        except BaseException as error:  # noqa: BLE001 - it is raised again in the test's own thread
            errors.append(error)
        finally:
            ready.set()

    # A daemon, so that one that does not end is an error here and not a test run without end.
    thread = threading.Thread(target=run, name="gateway", daemon=True)
    thread.start()
    try:
        if not ready.wait(PATIENCE):
            raise TimeoutError("the gateway did not start")
        if not errors:
            yield Running(gateway, port, loop)
    finally:
        if not errors:
            loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE)
        sock.close()
    if errors:
        raise errors[0]
    if thread.is_alive():
        running = [f"{task.get_name()}: {task.get_coro()}" for task in asyncio.all_tasks(loop)]
        raise TimeoutError(f"the gateway did not end; running: {', '.join(running)}")
