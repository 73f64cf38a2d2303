"""Every pool with its engines: opens what is missing, closes what rests or drains. Requests are the manager's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from sage_core.common.contracts import Scheduler
from sage_core.common.records import EngineDown, Lane, PoolSpec
from sage_core.common.telemetry import log
from sage_core.kernel.control_plane import events
from sage_core.kernel.control_plane.backlog import Backlog, fifo
from sage_core.kernel.control_plane.embedding_executor import EmbeddingExecutor
from sage_core.kernel.control_plane.fleet import Ledger
from sage_core.kernel.control_plane.flights import Flights
from sage_core.kernel.control_plane.pool import Pool, Standing
from sage_core.kernel.control_plane.request_classifier import tokenizing

#: Makes the scheduler of this name; the empty name is the deployment's own.
Policies = Callable[[str], Scheduler]


class Pools:
    """The pools of one manager.

    Args:
        act: takes the actions that follow.
    """

    def __init__(
        self,
        policies: Policies,
        ledger: Ledger,
        flights: Flights,
        executor: EmbeddingExecutor,
        act: Callable[[events.Action], None],
    ) -> None:
        #: The policy of every pool that names none.
        self.policy = ""
        self.lanes: dict[Lane, Pool] = {}
        self.by_engine: dict[str, Pool] = {}
        #: Pools whose queue or engines have changed in this instant, in order.
        self.touched: dict[Lane, Pool] = {}
        self._policies = policies
        self._ledger = ledger
        self._flights = flights
        self._executor = executor
        self._act = act
        self._engines = 0

    def get(self, lane: Lane, model: str = "") -> Pool:
        """The pool of a lane, made where it is missing."""
        lane = lane.removesuffix(":tokenize")
        pool = self.lanes.get(lane)
        return self.add(PoolSpec(lane=lane, model=model or lane)) if pool is None else pool

    def add(self, spec: PoolSpec) -> Pool:
        """Make a pool."""

        def alone() -> bool:
            return self.rests(pool)

        policy = self.scheduler(spec.policy or self.policy)
        backlog = Backlog(policy or fifo(), self._ledger, self._flights.objection, alone)
        if policy is None:
            backlog.faults.append(f"{spec.policy or self.policy!r}: it cannot be made, and fifo decides instead")
        pool = self.lanes[spec.lane] = Pool(spec, backlog)
        return pool

    def rests(self, pool: Pool) -> bool:
        """Whether no engine of the pool holds any work."""
        return not self._ledger.running(pool.lane) and not self._ledger.running(tokenizing(pool.lane))

    def scheduler(self, name: str) -> Scheduler | None:
        """Make a scheduler; None, with an alarm, where it cannot be: a wrong name must not take the requests along."""
        try:
            return self._policies(name)
        except Exception as error:  # noqa: BLE001 - policies are made by plugins, which may fail in any way
            log("policy_cannot_be_made", level=logging.ERROR, policy=name, error=error)
            return None

    def touch(self, pool: Pool) -> None:
        """Have a pool looked at before this instant ends."""
        self.touched[pool.lane] = pool

    def standing(self, engine: str) -> Standing:
        """An engine's state."""
        return self.by_engine[engine].engines[engine]

    def tend(self, pool: Pool, now: int) -> None:
        """Wake engines that were left alone, close those that drain or rest, open what is missing."""
        for standing in list(pool.paused.values()):
            if standing.paused_until is None or standing.paused_until <= now:
                standing.paused_until = None
                del pool.paused[standing.engine]
                if standing.state == "up":
                    self._ledger.reopen(standing.engine, probing=standing.failures > 0)
                    self.touch(pool)
        if pool.counts["draining"] or self._may_rest(pool):
            for standing in list(pool.engines.values()):
                drained = standing.state == "draining" and self._ledger.resting(standing.engine)
                if drained or self._superfluous(pool, standing, now):
                    self._close(pool, standing, now)
        while pool.alive < self._wanted(pool):
            member = pool.candidate(now)
            if member is None:
                break
            self._engines += 1
            engine = f"{pool.lane}#{self._engines}"
            pool.enlist(Standing(engine, member, now))
            self.by_engine[engine] = pool
            self._act(events.StartEngine(engine=engine, lane=pool.lane, member=member))

    def drain(self, pool: Pool, standing: Standing) -> None:
        """Send an engine nothing more; `tend` closes it when it holds nothing."""
        if standing.state == "up":
            pool.turn(standing, "draining")
            self._ledger.close(standing.engine)
        elif standing.state == "starting":
            self.forget(pool, standing.engine)
            self._act(events.StopEngine(engine=standing.engine))

    def remove(self, pool: Pool, engine: str, reason: str, now: int) -> None:
        """Strike off an engine that could not be opened or was lost."""
        pool.stumbled(pool.engines[engine].member, reason, now)
        self.forget(pool, engine)
        self.touch(pool)

    def forget(self, pool: Pool, engine: str) -> None:
        """Drop what is kept about an engine."""
        pool.dismiss(engine)
        del self.by_engine[engine]

    def alarms(self, pool: Pool, now: int) -> Iterable[int | None]:
        """When to look at a pool again though nothing happens."""
        limit = pool.spec.queue.wait
        if limit is not None and pool.line:
            yield next(iter(pool.line.values())).arrival + limit
        for standing in pool.paused.values():
            yield standing.paused_until
        if pool.spec.idle is not None and self._may_rest(pool):
            for standing in pool.engines.values():
                if standing.state == "up" and self._ledger.resting(standing.engine):
                    at = standing.since + pool.spec.idle
                    # One that is kept open is not looked at again and again.
                    yield at if at > now else None
        if pool.alive < self._wanted(pool):
            yield pool.next_candidate()

    def _waits(self, pool: Pool) -> bool:
        return bool(pool.line or pool.backlog or self._executor.holds(pool.lane))

    def _may_rest(self, pool: Pool) -> bool:
        # Closing an engine while something waits would open another one, and so on without end.
        return pool.spec.idle is not None and not self._waits(pool)

    def _wanted(self, pool: Pool) -> int:
        wanted = pool.spec.min
        if self._waits(pool):
            up = pool.counts["up"]
            wanted = max(wanted, 1)
            growing = 0 < up < pool.spec.members and not pool.counts["starting"]
            if growing and pool.backlog.cost + self._ledger.held(pool.lane) > pool.spec.grow * up:
                wanted = max(wanted, up + 1)
        return min(wanted, pool.spec.members)

    def _superfluous(self, pool: Pool, standing: Standing, now: int) -> bool:
        idle = pool.spec.idle
        return (
            idle is not None
            and standing.state == "up"
            and standing.since + idle <= now
            and self._ledger.resting(standing.engine)
            and not self._waits(pool)
            and pool.alive > pool.spec.min
        )

    def _close(self, pool: Pool, standing: Standing, now: int) -> None:
        self._ledger.remove(standing.engine)
        pool.backlog.observe(EngineDown(engine=standing.engine, lane=pool.lane), now)
        self.forget(pool, standing.engine)
        self._act(events.StopEngine(engine=standing.engine))
