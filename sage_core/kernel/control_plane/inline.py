"""Composes a driver from plugins and sage.toml: the same control plane inline and in the engine host."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from sage_core.common.config import Config
from sage_core.common.contracts import Scheduler
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.policies import scheduler_named
from sage_core.common.records import Request
from sage_core.kernel.control_plane.decisions import DecisionLog
from sage_core.kernel.control_plane.driver import Driver, Sink
from sage_core.kernel.control_plane.events import Decided
from sage_core.kernel.control_plane.fleet import Selects
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.kernel.scheduler.node_selector import Chain


def build_manager(host: Host, config: Config) -> ControlPlaneManager:
    """Make the manager with the policy and selector that sage.toml names.

    A host without the defaults has no policies: the manager's own, which are fifo and the least loaded, serve then.
    """
    selector: Selects | None = None
    if host.selectors:
        # The ledger offers only engines that have room.
        selector = Chain.named(config.scheduler.selector, config, host.selectors, filters=())
    if not host.schedulers:
        return ControlPlaneManager(selector=selector, classes=config.classes)

    def named(name: str) -> Scheduler:
        return scheduler_named(name or config.scheduler.requests, host.schedulers)

    # A wrong name is an error at the start, not at the first request.
    named("")
    return ControlPlaneManager(named, selector, policy=config.scheduler.requests, classes=config.classes)


def decision_sink(host: Host, log_of: Callable[[Request], DecisionLog]) -> Sink:
    """Send each line to its request's log and to the plugins that observe decisions."""
    # Known from the start: a hook call for each request is dear when nobody listens.
    observed = any("sage_on_request_decided" in plugin.hooks for plugin in host.plugins())

    def sink(decisions: Sequence[tuple[Request, Decided]]) -> None:
        by_log: dict[Path, tuple[DecisionLog, list[Decided]]] = {}
        for request, line in decisions:
            log = log_of(request)
            by_log.setdefault(log.path, (log, []))[1].append(line)
            if observed:
                host.hook.sage_on_request_decided(request=request, decision=msgspec.structs.asdict(line))
        for log, lines in by_log.values():
            log.write(lines)

    return sink


@asynccontextmanager
async def inline_driver(host: Host, config: Config, paths: Paths) -> AsyncIterator[Driver]:
    """Run a control plane on this event loop."""
    log = DecisionLog(paths.logs)
    try:
        sink = decision_sink(host, lambda request: log)
        async with Driver(build_manager(host, config), host.backends, sink=sink) as driver:
            yield driver
    finally:
        log.close()
