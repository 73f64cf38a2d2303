"""Opens and closes engines: one pool per model identity, each engine held open by a task of its own."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from sage_core.common.contracts import Backend, Engine, Shared
from sage_core.common.errors import ModelError, PluginError, SageError
from sage_core.common.host import Host
from sage_core.common.records import EngineInfo, Lane, ModelSpec, Occupancy
from sage_core.common.registry import Registry
from sage_core.common.telemetry import log
from sage_core.kernel.control_plane.pool_specs import members_of
from sage_core.kernel.dataflow.expressions import fill

#: Told of an engine: its info when it opened, what it says that it holds, the error when it is gone.
Report = Callable[[str, EngineInfo | Occupancy | Exception], None]
Held = Callable[[Sequence[ModelSpec]], None]


def make_backend(backends: Registry, name: str) -> Backend:
    """Instantiate the backend called `name`; importing it may take long."""
    made: object = backends[name]
    if isinstance(made, type):
        made = made()
    if not (callable(getattr(made, "identify", None)) and callable(getattr(made, "open", None))):
        raise PluginError(backends.origin(name), f"backend {name!r} has no identify and open")
    return made  # type: ignore[return-value]  # held against the Protocol by the line above


def identify(spec: ModelSpec, host: Host) -> str:
    """Digest of what decides a model's results, for reuse keys; does not load it.

    Raises `ModelError` when the weights are not there and `UnknownName` when no plugin brings the backend.
    """
    first = members_of(spec)[0]
    return make_backend(host.backends, first.backend).identify(first)


def revealed(spec: ModelSpec, environ: Mapping[str, str]) -> ModelSpec:
    """The model with its secrets in place: for the backend that opens it, and for nobody else."""
    source, options = fill([spec.source, spec.options], {"secret": environ})
    return msgspec.structs.replace(spec, source=source, options=options)


class EnginePools:
    """The engines of this process.

    Args:
        backends: name → backend class, by plugin.
        tasks: group in which each engine is held open.
        report: called on the event loop for everything that happens to an engine.
        held: called with the models of all engines that are open, opening or closing, whenever these change.
    """

    def __init__(
        self, backends: Registry, tasks: asyncio.TaskGroup, report: Report, held: Held = lambda models: None
    ) -> None:
        self._backends = backends
        self._tasks = tasks
        self._report = report
        self._made: dict[str, Backend] = {}
        self._making: dict[str, asyncio.Lock] = {}
        self._specs: dict[Lane, tuple[ModelSpec, ...]] = {}
        self._engines: dict[str, Engine] = {}
        self._infos: dict[str, EngineInfo] = {}
        self._stops: dict[str, asyncio.Event] = {}
        #: The tasks of engines that are being opened.
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._held: dict[str, ModelSpec] = {}
        self._tell_held = held

    def register(self, lane: Lane, spec: ModelSpec) -> bool:
        """Say which model a lane serves; false for a lane that is known, whose engines keep the name given first."""
        if lane in self._specs:
            return False
        self._specs[lane] = members_of(spec)
        return True

    def replace(self, lane: Lane, spec: ModelSpec) -> tuple[int, tuple[int, ...]]:
        """Say which engines a lane has from here on; return how many numbers there are, and which are out of service.

        An engine keeps its number as long as its table stays the same, whatever is written before it.
        """
        known = list(self._specs.get(lane, ()))
        kept: list[int] = []
        for member in members_of(spec):
            same = (at for at, each in enumerate(known) if each == member and at not in kept)
            at = next(same, len(known))
            known[at:] = known[at:] or [member]
            kept.append(at)
        self._specs[lane] = tuple(known)
        return len(known), tuple(at for at in range(len(known)) if at not in kept)

    def members(self, lane: Lane) -> tuple[ModelSpec, ...]:
        """What a lane's engines are opened from, by their numbers."""
        return self._specs.get(lane, ())

    def start(self, engine: str, lane: Lane, member: int = 0) -> None:
        """Begin to open an engine: one of the lane's members."""
        spec = self._specs[lane][member]
        stop = self._stops[engine] = asyncio.Event()
        self._held[engine] = spec
        self._tell_held(list(self._held.values()))
        task = self._tasks.create_task(self._hold(engine, spec, stop), name=f"engine {engine}")
        self._opening[engine] = task
        task.add_done_callback(lambda _: self._opening.pop(engine, None))

    def stop(self, engine: str) -> None:
        """Begin to close an engine, or end its opening; unknown ones are closed already."""
        self._engines.pop(engine, None)
        self._infos.pop(engine, None)
        if engine in self._stops:
            self._stops.pop(engine).set()
            # Nobody waits for what may take minutes to load.
            if engine in self._opening:
                self._opening[engine].cancel()

    def close(self) -> None:
        """Begin to close all."""
        for engine in list(self._stops):
            self.stop(engine)

    def engine(self, engine: str) -> Engine:
        """An open engine."""
        return self._engines[engine]

    def figures(self, engine: str) -> Mapping[str, float]:
        """What an engine last said of itself, for those who look; empty where it says nothing."""
        return getattr(self._engines.get(engine), "figures", {})

    def info(self, lane: Lane) -> EngineInfo | None:
        """Describe the lane's first engine, or None when none is open."""
        return next((info for info in self._infos.values() if info.id.startswith(f"{lane}#")), None)

    async def _backend(self, name: str) -> Backend:
        # Made once, also for models that are asked for at the same time.
        async with self._making.setdefault(name, asyncio.Lock()):
            if name not in self._made:
                # Importing a backend loads native libraries and would hold up every stream of this loop.
                self._made[name] = await asyncio.to_thread(make_backend, self._backends, name)
            return self._made[name]

    async def _hold(self, engine: str, spec: ModelSpec, stop: asyncio.Event) -> None:
        did = "could not open it"
        try:
            backend = await self._backend(spec.backend)
            identity = await asyncio.to_thread(backend.identify, spec)
            async with backend.open(revealed(spec, os.environ)) as running:
                did = "lost its engine"
                self._opening.pop(engine, None)
                if not stop.is_set():
                    self._opened(engine, spec, identity, running)
                    await _until(stop, running, spec, partial(self._report, engine))
        except asyncio.CancelledError:
            # The opening was ended by `stop`; any other cancellation is that of the whole control plane.
            if not stop.is_set():
                raise
        except Exception as error:  # noqa: BLE001 - whatever a backend raises ends its requests, not the control plane
            if stop.is_set():
                # What goes wrong while closing concerns no request.
                log("engine_not_closed", level=logging.WARNING, engine=engine, error=f"{type(error).__name__}: {error}")
            else:
                self.stop(engine)
                self._report(engine, _explained(spec, did, error))
        finally:
            del self._held[engine]
            self._tell_held(list(self._held.values()))

    def _opened(self, engine: str, spec: ModelSpec, identity: str, running: Engine) -> None:
        info = EngineInfo(
            id=engine,
            model=spec.name,
            backend=spec.backend,
            kinds=running.kinds,
            capacity=running.capacity,
            identity=identity,
            dimension=running.dimension,
            price=float(spec.options.get("price", 1.0)),
        )
        self._engines[engine] = running
        self._infos[engine] = info
        self._report(engine, info)


async def _until(stop: asyncio.Event, running: Engine, spec: ModelSpec, told: Callable[[Occupancy], None]) -> None:
    """Wait for `stop`. Raises what an engine that watches itself says before, when it is gone."""
    watch: Callable[[], Coroutine[Any, Any, None]] | None = getattr(running, "watch", None)
    if watch is None:
        await stop.wait()
        return
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        stopping = tasks.create_task(stop.wait())
        telling = tasks.create_task(_tell(running, told)) if isinstance(running, Shared) else None
        await asyncio.wait((watching, stopping), return_when=asyncio.FIRST_COMPLETED)
        watching.cancel()
        stopping.cancel()
        if telling is not None:
            telling.cancel()
    if not stop.is_set():
        raise ModelError(spec.name, "its engine is gone", "the next request opens another one")


async def _tell(running: Shared, told: Callable[[Occupancy], None]) -> None:
    async for occupancy in running.occupancies():
        told(occupancy)


def _explained(spec: ModelSpec, did: str, error: Exception) -> Exception:
    # A backend that keeps tasks of its own beside the engine reports their errors in a group.
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, SageError):
        return error
    return ModelError(spec.name, f"backend {spec.backend!r} {did}: {type(error).__name__}: {error}")
