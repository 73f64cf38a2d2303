"""The process behind `sage serve`: elected engine host, server, signals, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sage_core import Host, Paths, SageError, UsageError
from sage_core.serving import (
    Config,
    EngineHostError,
    Recorder,
    SagePorts,
    elected,
    engine_host,
    holdings_path,
    load_config,
    log,
    private_folder,
    seconds,
    socket_path,
)
from sage_gateway import granian_server
from sage_gateway.gateway import Gateway
from sage_gateway.routes import create_app
from sage_gateway.server import bound, listen
from sage_gateway.settings import read_settings

#: Seconds to wait for an engine host that other runs started: it leaves with the last of them.
TAKE_OVER = 15.0
#: Seconds beyond the grace after which the server is not waited for.
MARGIN = 2.0
#: Objects more than before at which a garbage collection looks for cycles, and how many such collections lead to one of
#: older objects. Requests leave no cycles, closed connections of clients do: 40 objects each. With Python's own figures
#: a few dozen requests at once set off collection after collection, and those of all objects hold up every stream.
YOUNG, OLDER, ALL = 2_000, 3, 3
#: Seconds between collections of everything: what a connection leaves that was open for long is found by no other.
SWEEP = 30.0

Say = Callable[[str], object]


def run(
    host: Host,
    config: Config,
    paths: Paths,
    *,
    address: str = "",
    port: int | None = None,
    record: Path | None = None,
    say: Say,
) -> None:
    """Serve until told to end; raises what is wrong before anything is served."""
    settings = read_settings(config.gateway)
    if settings.server == "granian":
        granian_server.found()
    address = address or settings.host
    gateway = Gateway(host, config, paths, settings)
    if gateway.accounts.open_to_all and not _is_loopback(address):
        help = "make a key with: sage keys add --tenant NAME; or leave --host out, to listen on loopback only"
        raise UsageError(f"without keys, {address} would let anybody in", help)
    ports = SagePorts(config.ports if port is None else {"gateway": port} if port else {}, {} if port else None)
    # Any free one needs no proof.
    port = 0 if port == 0 else ports.claim("gateway", address)
    with _engine_host_lock(paths, say), contextlib.ExitStack() as stack:
        recorder = stack.enter_context(Recorder(record, config)) if record is not None else None
        factory = _loop_factory()
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_serve(gateway, address, port, recorder, say))


async def _serve(gateway: Gateway, address: str, port: int, recorder: Recorder | None, say: Say) -> None:
    paths, loop = gateway.paths, asyncio.get_running_loop()
    stop, hurry = asyncio.Event(), asyncio.Event()

    grace = seconds(gateway.settings.grace)

    def told() -> None:
        if stop.is_set():
            hurry.set()
        else:
            say(f"sage serve: ends; what runs has {gateway.settings.grace}, and a second signal ends it at once")
        stop.set()

    sock = bound(address, port, unread=seconds(gateway.settings.write_timeout))
    sock.listen(2_048)
    path = socket_path(paths)
    async with engine_host(
        gateway.host, paths, idle=None, config=gateway.config, record=gateway.recorded(recorder), watch=gateway.observe
    ) as service:
        gateway.open(service)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, told)
        loop.add_signal_handler(signal.SIGHUP, lambda: reload(gateway, say))
        runs = asyncio.create_task(service.serve(path), name="engine host")
        shown = f"[{address}]" if ":" in address else address
        url = f"http://{shown}:{sock.getsockname()[1]}"
        gateway.announce(url)
        say(f"sage serve: {url}/v1")
        for name in sorted(gateway.models):
            say(f"  {name}  ({gateway.models[name].backend})")
        if not gateway.models:
            say("  no model yet: add [models.NAME] to sage.toml, or: sage models add")
        sweeping = asyncio.create_task(_sweep(), name="garbage")
        server = asyncio.create_task(listen(create_app(gateway), sock, stop, gateway.settings), name="http")
        stopped = asyncio.create_task(stop.wait(), name="first signal")
        hurried = asyncio.create_task(hurry.wait(), name="second signal")
        await asyncio.wait({server, stopped}, return_when=asyncio.FIRST_COMPLETED)
        # The server keeps to the grace by itself, but for what holds it up there is an end too.
        await asyncio.wait({server, hurried}, timeout=grace + MARGIN, return_when=asyncio.FIRST_COMPLETED)
        for each in (stopped, hurried, sweeping):
            each.cancel()
        # A server that is cancelled before it has begun to end takes that for the beginning, and waits for the grace.
        while not server.done():
            server.cancel()
            await asyncio.wait({server}, timeout=0.2)
        service.leave()
        results = await asyncio.gather(server, stopped, hurried, sweeping, runs, return_exceptions=True)
        gateway.close()
    for result in results:
        if isinstance(result, Exception):
            raise result
    say("sage serve: ended")


async def _sweep() -> None:
    """Let no garbage collection look again at what is there from the start; collect less often, and all at times."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, OLDER, ALL)
    while True:
        await asyncio.sleep(SWEEP)
        gc.collect()


def reload(gateway: Gateway, say: Say) -> None:
    """Read sage.toml again; what is wrong in it is said, and nothing changes."""
    try:
        changed = gateway.reload(load_config(Path.cwd()))
    except SageError as error:
        log("reload_failed", level=logging.ERROR, error=error)
        say(f"sage serve: sage.toml was not taken: {error}")
        return
    say(f"sage serve: sage.toml read again: {changed or 'nothing has changed'}")


@contextlib.contextmanager
def _engine_host_lock(paths: Paths, say: Say) -> Iterator[None]:
    """Become the engine host of this machine; an idle one leaves by itself."""
    path = socket_path(paths)
    private_folder(path.parent)
    lock = path.with_suffix(".lock")
    began, release = time.monotonic(), elected(lock)
    while release is None:
        if time.monotonic() - began > TAKE_OVER:
            holder = lock.read_text().strip() if lock.exists() else "?"
            raise EngineHostError(
                f"process {holder} serves models to runs of this machine, and leaves with the last of them; "
                "wait for it, or stop another `sage serve`"
            )
        if time.monotonic() - began < 0.2:
            say("sage serve: waits for the engine host that is running to leave")
        time.sleep(0.2)
        release = elected(lock)
    try:
        path.unlink(missing_ok=True)
        yield
    finally:
        holdings_path(paths).unlink(missing_ok=True)
        release()


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - an extra, used where it is installed
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
