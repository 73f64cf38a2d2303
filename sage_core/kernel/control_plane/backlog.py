"""The queued works and the policy over them: what the policy may not do is caught here, and the policy replaced."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import islice

from sage_core.common.contracts import Fleet, Scheduler
from sage_core.common.policies import KeyedScheduler
from sage_core.common.records import (
    Decision,
    Dispatch,
    Event,
    Idle,
    Place,
    Queued,
    Rejected,
    Shed,
    Verdict,
    Withdrawn,
    Work,
)
from sage_core.common.telemetry import log

#: Works that are tried when nothing runs and the policy is idle: one that it lost becomes one of the first in the end.
LOOKED_AT = 32
#: Times in a row that a policy may ask to be woken at once without deciding anything.
PATIENCE = 32


class Arrival:
    """The order that replaces a broken policy: first come, first served."""

    def rank(self, work: Work) -> float:
        return float(work.arrival)


def fifo() -> Scheduler:
    """Make the scheduler of last resort; it depends on no plugin."""
    return KeyedScheduler(Arrival())


class Backlog:
    """Every work that waits, with one policy deciding over it.

    Args:
        policy: the configured scheduler.
        fleet: the view it may read.
        valid: says what is wrong with dispatching a work to a place, or nothing.
        alone: says whether no engine holds any work, so that nobody else will wake the policy.
    """

    def __init__(
        self, policy: Scheduler, fleet: Fleet, valid: Callable[[Work, Place], str], alone: Callable[[], bool]
    ) -> None:
        self.policy = policy
        #: What was wrong with the configured policy, once it has been replaced; the one in its place is not replaced.
        self.faults: list[str] = []
        self._fleet = fleet
        self._valid = valid
        self._alone = alone
        self._queued: dict[str, Work] = {}
        self._restless = 0
        #: Engine-seconds of everything queued, each as it was estimated when it came, and tokens in and out.
        self.cost = 0.0
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._queued)

    def __contains__(self, work_id: object) -> bool:
        return work_id in self._queued

    def works(self) -> list[Work]:
        """Everything queued, in order of submission."""
        return list(self._queued.values())

    def submit(self, work: Work, now: int) -> Verdict:
        """Queue a work, unless the policy refuses it."""
        self._restless = 0
        try:
            verdict: object = self.policy.submit(work, self._fleet, now)
            problem = "" if isinstance(verdict, Queued | Rejected) else f"submit returned {verdict!r:.80}, no Verdict"
        except Exception as error:  # noqa: BLE001 - a policy may fail in any way and must not take the others' work along
            problem = f"submit raised {type(error).__name__}: {error}"
        if problem:
            self._replace(problem, now)
            verdict = self.policy.submit(work, self._fleet, now)
        if isinstance(verdict, Rejected):
            return verdict
        self._queued[work.id] = work
        self.cost += work.cost
        self.tokens += work.tokens_in + work.tokens_out
        return Queued()

    def switch(self, policy: Scheduler, now: int) -> list[tuple[Work, Rejected]]:
        """Let another policy decide over what waits; returns what it refuses."""
        self.policy = policy
        self.faults.clear()
        waiting = sorted(self._queued.values(), key=lambda work: work.arrival)
        self._queued.clear()
        self.cost = 0.0
        self.tokens = 0
        refused = []
        for work in waiting:
            verdict = self.submit(work, now)
            if isinstance(verdict, Rejected):
                refused.append((work, verdict))
        return refused

    def withdraw(self, work: Work, now: int) -> None:
        """Take a queued work away from the policy."""
        if work.id in self._queued:
            self._remove(work)
            self.observe(Withdrawn(work=work), now)

    def observe(self, event: Event, now: int) -> None:
        """Tell the policy what happened."""
        self._restless = 0
        try:
            self.policy.observe(event, now)
        except Exception as error:  # noqa: BLE001 - as in `submit`
            self._replace(f"observe raised {type(error).__name__}: {error}", now)

    def decide(self, now: int) -> Decision:
        """Return one valid decision; a dispatched or shed work has left the backlog."""
        while self._queued:
            try:
                decision = self.policy.next(self._fleet, now)
            except Exception as error:  # noqa: BLE001 - as in `submit`
                self._replace(f"next raised {type(error).__name__}: {error}", now)
                continue
            problem = self._problem(decision, now)
            if not problem:
                if isinstance(decision, Dispatch | Shed):
                    self._remove(decision.work)
                return decision
            self._replace(problem, now)
        return Idle()

    def _remove(self, work: Work) -> None:
        gone = self._queued.pop(work.id)
        self.cost -= gone.cost
        self.tokens -= gone.tokens_in + gone.tokens_out
        if not self._queued:
            # What rounding has left.
            self.cost = 0.0

    def _problem(self, decision: object, now: int) -> str:
        if isinstance(decision, Idle):
            return self._stuck(decision, now)
        if not isinstance(decision, Dispatch | Shed):
            return f"next returned {decision!r:.80}, which is no Decision"
        if decision.work.id not in self._queued:
            return f"{type(decision).__name__.lower()} of work {decision.work.id!r}, which is not queued"
        if isinstance(decision, Shed):
            return ""
        place: object = decision.place
        if not isinstance(place, Place):
            return f"dispatch of work {decision.work.id!r} to {place!r:.80}, which is no Place"
        return self._valid(self._queued[decision.work.id], place)

    def _stuck(self, decision: Idle, now: int) -> str:
        if decision.until is not None:
            self._restless = self._restless + 1 if decision.until <= now else 0
            if self._restless >= PATIENCE:
                return f"asked {PATIENCE} times to be woken at once and decided nothing"
            return ""
        # Nothing is running and no timer is wanted: what fits a place at this point would wait for ever.
        if self._alone():
            for work in islice(self._queued.values(), LOOKED_AT):
                if self._fleet.room(work.lane) and self._fleet.pick(work) is not None:
                    return f"lost work {work.id!r}: it fits, nothing runs, and the policy is idle without a time"
        return ""

    def _replace(self, problem: str, now: int) -> None:
        if self.faults:
            raise RuntimeError(f"the fallback scheduler failed: {problem}")
        name = type(self.policy).__name__
        self.faults.append(f"{name}: {problem}")
        log("policy_replaced", level=logging.ERROR, policy=name, problem=problem, by="fifo")
        self.policy = fifo()
        self._restless = 0
        for work in sorted(self._queued.values(), key=lambda work: work.arrival):
            self.policy.submit(work, self._fleet, now)
