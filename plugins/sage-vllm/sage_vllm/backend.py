"""The backend `vllm`: starts a server for an engine, or wakes one, or adopts one; and ends what it started."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sage_openai.options import identity as server_identity
from sage_openai.options import read_options as read_server_options

from sage_core import Engine, ModelError, ModelSpec, find_paths
from sage_vllm.environment import find_program
from sage_vllm.gpus import Gpus
from sage_vllm.options import (
    Build,
    Options,
    build_of,
    command_line,
    identity,
    read_options,
    sequences_of,
    sleeps,
    variables,
)

if TYPE_CHECKING:
    from sage_vllm.engine import VllmEngine
    from sage_vllm.figures import Limits
    from sage_vllm.process import VllmProcess


class _Running:
    """A server with what it holds; asleep between two engines of the same settings."""

    def __init__(self, process: VllmProcess, key: object, gpus: tuple[str, ...], number: int) -> None:
        self.process = process
        self.key = key
        #: The GPUs that it was started for, and whether it holds them: asleep it does not.
        self.gpus = gpus
        self.holds = True
        self.number = number
        self.timer: asyncio.TimerHandle | None = None
        self.ending: asyncio.Task[None] | None = None


class VllmBackend:
    """Runs vLLM servers, each in a process group that ends with this process.

    Args:
        gpus: the GPUs of this machine.
    """

    def __init__(self, gpus: Gpus | None = None) -> None:
        self._gpus = gpus or Gpus()
        self._asleep: list[_Running] = []
        #: Numbers of the log files in use.
        self._numbers: set[int] = set()

    def identify(self, model: ModelSpec) -> str:
        options = read_options(model)
        if options.base_url:
            given = _adopted(model, options)
            return server_identity(given, read_server_options(given))
        return identity(model, options, build_of(model, options))

    def open(self, model: ModelSpec) -> AbstractAsyncContextManager[Engine]:
        options = read_options(model)
        return self._adopt(model, options) if options.base_url else self._launch(model, options)

    def add(self, name: str, source: str, options: Mapping[str, object], target: Path) -> Mapping[str, object]:
        """Fill the folder `target` with weights that vLLM can load."""
        from sage_vllm.add import add_model  # noqa: PLC0415 - most processes that have a backend add nothing

        return add_model(name, source, options, target)

    async def close(self) -> None:
        """End the servers that sleep; they end with this process in any case."""
        for each in list(self._asleep):
            if each.timer is not None:
                each.timer.cancel()
            await (each.ending or self._finish(each))
        self._asleep.clear()

    @asynccontextmanager
    async def _adopt(self, model: ModelSpec, options: Options) -> AsyncIterator[Engine]:
        # Here and below: the HTTP client costs a fifth of a second, and `identify` does without it.
        from sage_vllm.engine import ask_limits, capacity_of, server_options  # noqa: PLC0415

        given = _adopted(model, options)
        read_server_options(given)
        limits = await ask_limits(model.name, options.base_url, options.api_key)
        capacity = capacity_of(options, sequences_of(options, build_of(model, options)), limits)
        said = server_options(given, options, options.base_url, options.api_key, capacity)
        async with self._connected(model, said, None, limits, options.figures) as engine:
            yield engine

    @asynccontextmanager
    async def _launch(self, model: ModelSpec, options: Options) -> AsyncIterator[Engine]:
        from sage_vllm.engine import ask_limits, capacity_of, server_options  # noqa: PLC0415

        build = build_of(model, options)
        running = await self._awake(model, options, build) or await self._start(model, options, build)
        process, broken = running.process, True
        try:
            limits = await ask_limits(model.name, process.root, process.key)
            capacity = capacity_of(options, sequences_of(options, build), limits)
            said = server_options(model, options, f"{process.root}/v1", process.key, capacity)
            async with self._connected(model, said, process, limits, options.figures) as engine:
                yield engine
            broken = False
        finally:
            await self._put_away(running, options, asleep=not broken and sleeps(options, build))

    @asynccontextmanager
    async def _connected(
        self, model: ModelSpec, said: object, process: VllmProcess | None, limits: Limits, figures: float
    ) -> AsyncIterator[VllmEngine]:
        from sage_openai.options import Options as ServerOptions  # noqa: PLC0415
        from sage_openai.server import Server  # noqa: PLC0415

        from sage_vllm.engine import VllmEngine  # noqa: PLC0415

        assert isinstance(said, ServerOptions)
        async with Server(model, said) as server:
            engine = VllmEngine(model, said, server, process, limits, figures)
            await engine.ask_about_itself()
            yield engine

    # ------------------------------------------------------------ servers

    async def _start(self, model: ModelSpec, options: Options, build: Build) -> _Running:
        from sage_vllm.process import VllmProcess  # noqa: PLC0415

        line = command_line(model, options, build)
        paths = find_paths(Path.cwd())
        program = find_program(model.name, options.executable, build, paths)
        count = int(model.needs.get("gpu", 0))
        if build == "cuda" and not count:
            # What the model does not name, the node's ledger does not count.
            raise ModelError(model.name, "the CUDA build runs on GPUs, and the model names none", "needs = { gpu = 1 }")
        gpus = self._gpus.take(model.name, count)
        number = next(n for n in range(1, len(self._numbers) + 2) if n not in self._numbers)
        self._numbers.add(number)
        said = variables(model, options, build)
        if gpus:
            said = {"CUDA_VISIBLE_DEVICES": ",".join(gpus), **said}
        log = paths.logs / f"vllm-{re.sub(r'[^A-Za-z0-9._-]', '-', model.name)}-{number}.log"
        # Starting a process holds up the loop for as long as copying this one's page tables takes.
        starting = asyncio.ensure_future(asyncio.to_thread(VllmProcess, model.name, [str(program), *line], said, log))
        try:
            await asyncio.wait((starting,))
            await starting.result().ready(options.start)
        except BaseException:
            # Nothing stops a thread: whoever is cancelled meanwhile ends what it has started.
            await asyncio.wait((starting,))
            if starting.exception() is None:
                await self._finish(_Running(starting.result(), _key(model, options), gpus, number))
            else:
                self._gpus.give_back(gpus)
                self._numbers.discard(number)
            raise
        return _Running(starting.result(), _key(model, options), gpus, number)

    async def _awake(self, model: ModelSpec, options: Options, build: Build) -> _Running | None:
        """Wake a server of the same settings that sleeps, where its GPUs are free."""
        key = _key(model, options)
        for each in [each for each in self._asleep if each.key == key and each.ending is None]:
            self._asleep.remove(each)
            if each.timer is not None:
                each.timer.cancel()
            free = set(self._gpus.free())
            if each.process.alive and set(each.gpus) <= free:
                self._gpus.take(model.name, len(each.gpus), each.gpus)
                each.holds = True
                if await each.process.wake():
                    return each
            await self._finish(each)
        return None

    async def _put_away(self, running: _Running, options: Options, *, asleep: bool) -> None:
        if asleep and running.process.alive and await running.process.sleep(options.sleep or 1):
            self._gpus.give_back(running.gpus)
            running.holds = False
            self._asleep.append(running)
            running.timer = asyncio.get_running_loop().call_later(options.asleep, self._forget, running)
            return
        await self._finish(running)

    def _forget(self, running: _Running) -> None:
        # A task of nobody's: the engine is closed, and the backend has no life of its own. `close` waits for it.
        running.ending = asyncio.get_running_loop().create_task(self._finish(running))

    async def _finish(self, running: _Running) -> None:
        try:
            # A cancelled opening must not leave a server behind.
            await asyncio.shield(running.process.end())
        finally:
            if running.holds:
                self._gpus.give_back(running.gpus)
            self._numbers.discard(running.number)
            if running in self._asleep:
                self._asleep.remove(running)


def _key(model: ModelSpec, options: Options) -> object:
    """What two engines must have in common for one server to serve the one after the other."""
    return model.name, model.source, msgspec.json.encode(model.needs, order="deterministic"), options


def _adopted(model: ModelSpec, options: Options) -> ModelSpec:
    """The model as sage-openai knows it."""
    given = {
        "base_url": options.base_url,
        "api_key": options.api_key,
        "kinds": options.kinds,
        "extra": options.extra,
        **({"model": options.model} if options.model else {}),
    }
    return msgspec.structs.replace(model, backend="openai", options=given)
