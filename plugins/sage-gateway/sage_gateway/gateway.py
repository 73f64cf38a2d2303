"""`Gateway`: what every route shares, made once by `sage serve` and by each test."""

from __future__ import annotations

import asyncio
import itertools
import os
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from sage_core import EngineInfo, Host, Lane, ModelSpec, Paths, Request
from sage_core.serving import (
    Config,
    Decided,
    Desk,
    Driver,
    EngineHost,
    Instant,
    Project,
    pool_of,
    resolve_models,
    scheduler_named,
    seconds,
    size,
    suggest,
)
from sage_gateway.accounts import Account, Accounts
from sage_gateway.batching import Batches
from sage_gateway.beacon import beacon_path, light, put_out
from sage_gateway.cabinet import Cabinet
from sage_gateway.callers import ClassDefaults
from sage_gateway.errors import ApiError
from sage_gateway.keyed import KeyedAccounts
from sage_gateway.keys import KeyFile, keys_path
from sage_gateway.limits import spending_path
from sage_gateway.metrics import Metrics
from sage_gateway.settings import GatewaySettings, read_settings


class Gateway:
    """The models, the control plane and the settings behind every route.

    Args:
        host: the plugins.
        config: sage.toml; `reload` replaces it.
        settings: ``[gateway]`` of it.
        accounts: who knows keys; None means those of the project, and without any every caller is let in.
    """

    def __init__(
        self,
        host: Host,
        config: Config,
        paths: Paths,
        settings: GatewaySettings,
        *,
        accounts: Accounts | None = None,
    ) -> None:
        self.host = host
        self.config = config
        self.paths = paths
        self.settings = settings
        self.metrics = Metrics()
        self.accounts: Accounts = accounts or KeyedAccounts(
            KeyFile(keys_path(paths)), spending=spending_path(paths), prices=settings.prices, used=self.metrics.used
        )
        self.max_body = size(settings.max_body)
        #: Seconds.
        self.body_timeout = seconds(settings.body_timeout)
        self.classes = ClassDefaults(config)
        self.models: Mapping[str, ModelSpec] = resolve_models({}, config.models, paths)
        #: The pool of each model.
        self.lanes: dict[str, Lane] = {}
        #: Runs, deployments and queues of the project.
        self.desk = Desk(host, Project(folder=paths.project.parent, paths=paths, config=config))
        self.files = Cabinet(paths.project / "files")
        self.batches = Batches(self.desk, self.files, paths, keep=settings.files.seconds)
        self._tending: list[asyncio.Task[None]] = []
        #: Lines of the decision log by request, the latest last.
        self.decisions: OrderedDict[str, list[Decided]] = OrderedDict()
        self._prefix = f"req-{os.getpid():x}{uuid.uuid4().hex[:8]}"
        self._numbers = itertools.count(1)

    def open(self, service: EngineHost) -> None:
        """Begin to serve: keep a pool for each model of sage.toml."""
        self.service = service
        self.driver: Driver = service.driver
        self.metrics.open(service.driver)
        for spec in self.models.values():
            self.serve(spec)

    def reload(self, config: Config) -> str:
        """Serve what a changed sage.toml says, and say what that changed; raises and changes nothing where it is wrong.

        ``[models]``, ``[classes]``, ``[gateway.queue]`` and ``[scheduler] requests`` take effect at once; the rest at
        the next start. Engines that both tables have in common go on as if nothing had happened.
        """
        settings, classes = read_settings(config.gateway), ClassDefaults(config)
        models = resolve_models({}, config.models, self.paths)
        for spec in models.values():
            # Raises before anything is changed.
            pool_of(spec, queue=settings.queue_limits)
        policy = config.scheduler.requests
        changed = []
        if policy != self.config.scheduler.requests:
            scheduler_named(policy, self.host.schedulers)
            self.driver.switch(policy)
            changed.append(f"policy {policy}")
        if config.classes != self.config.classes:
            self.driver.classes(config.classes)
            changed.append("classes")
        anew = settings.queue != self.settings.queue
        self.config, self.settings, self.classes = config, settings, classes
        before = self.models
        self.models = models
        for name in [name for name in before if name not in models]:
            lane = self.lanes.pop(name)
            if lane not in self.lanes.values():
                self.driver.withdraw(lane)
            changed.append(f"{name} is served no more")
        for name, spec in models.items():
            if spec != before.get(name) or anew:
                self.serve(spec)
                changed.append(f"{name} {'changed' if name in before else 'is served'}")
        return ", ".join(changed)

    def serve(self, spec: ModelSpec) -> None:
        """Serve a model by this table from here on, whatever served it before."""
        self.models = {**self.models, spec.name: spec}
        pool = self.driver.serve(spec, queue=self.settings.queue_limits, lane=self.lanes.get(spec.name))
        self.lanes[spec.name] = pool.lane

    def announce(self, url: str) -> None:
        """Tell the jobs of this gateway where it is, and look after those that another one left."""
        beacon = light(beacon_path(self.paths), url)
        self.accounts.trust(beacon.secret)
        make = asyncio.get_running_loop().create_task
        self._tending = [make(self.batches.tend(), name="batches"), make(self.accounts.tend(), name="accounts")]

    def recorded(self, record: Callable[[Instant], None] | None) -> Callable[[Instant], None]:
        """What the driver is to call with each instant: the metrics, and a recorder where there is one."""
        if record is None:
            return self.metrics.record

        def both(instant: Instant) -> None:
            record(instant)
            self.metrics.record(instant)

        return both

    def close(self) -> None:
        """Let go of the store, and keep what was spent."""
        for task in self._tending:
            task.cancel()
        self.desk.close()
        self.accounts.keep()
        put_out(beacon_path(self.paths))

    def next_id(self) -> str:
        """An id for a request, unique on this machine."""
        return f"{self._prefix}-{next(self._numbers)}"

    def model(self, name: str, account: Account) -> ModelSpec:
        """The model of a name; raises `ApiError` 404 with the candidates, of those that the account may ask for."""
        spec = self.models.get(name)
        if spec is not None and account.allows(name):
            return spec
        known = self.names(account)
        listed = f" Known: {', '.join(known)}." if known else " None is served."
        message = f"The model {name!r} does not exist.{suggest(name, known)}{listed}"
        raise ApiError(404, message, code="model_not_found", param="model")

    def info(self, name: str) -> EngineInfo | None:
        """What serves a model, or None while no engine of it is open."""
        return self.driver.pools.info(self.lanes[name])

    def names(self, account: Account) -> list[str]:
        """Models that an account may ask for."""
        return sorted(filter(account.allows, self.models))

    def observe(self, decisions: Sequence[tuple[Request, Decided]]) -> None:
        """Remember what was decided, and count it; the driver's sink calls it."""
        self.metrics.observe(decisions)
        kept = self.decisions
        for _, line in decisions:
            if line.request in kept:
                kept[line.request].append(line)
            else:
                kept[line.request] = [line]
                if len(kept) > self.settings.decisions:
                    kept.popitem(last=False)
