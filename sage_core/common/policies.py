"""What turns a policy class into something that runs: `KeyedScheduler`, and the ways to make policies by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from urllib.parse import parse_qsl

from sage_core.common.contracts import Fleet, Ordering, Scheduler
from sage_core.common.errors import ConfigError, PluginError, suggest
from sage_core.common.heap import Ranked, WorkHeap
from sage_core.common.records import Decision, Dispatch, Event, Idle, Lane, Queued, Verdict, Withdrawn, Work
from sage_core.common.registry import Registry

#: Heads that fit nowhere and are passed before a lane is given up for this instant.
LOOK_AHEAD = 8


class KeyedScheduler:
    """Makes a `Scheduler` of any `Ordering`: one heap per lane, ties by arrival and then by order of submission.

    Among the lanes with room, the lane with the smallest head goes first. A head that fits nowhere is passed for
    up to `look_ahead` works of its lane, so that one large work does not block small ones; it keeps its rank.
    """

    def __init__(self, ordering: Ordering, *, look_ahead: int = LOOK_AHEAD) -> None:
        self.ordering = ordering
        self._look_ahead = look_ahead
        self._lanes: dict[Lane, WorkHeap] = {}

    def submit(self, work: Work, fleet: Fleet, now: int) -> Verdict:
        """Queue the work; a second submission of a queued id takes the first one's place."""
        rank = self.ordering.rank(work)
        if not math.isfinite(rank):
            name = type(self.ordering).__name__
            raise PluginError(name, f"rank of work {work.id!r} is {rank}", "a rank is a finite number")
        heap = self._lanes.get(work.lane)
        if heap is None:
            heap = self._lanes[work.lane] = WorkHeap()
        heap.push(work, rank)
        return Queued()

    def next(self, fleet: Fleet, now: int) -> Decision:
        """Dispatch the first work that fits somewhere, or be idle until the next event."""
        lanes = [lane for lane in self._lanes if fleet.room(lane)]
        if len(lanes) > 1:
            # Lanes rarely number more than a few, and most calls end at the first one.
            lanes.sort(key=lambda lane: self._first(lane)[:2])
        for lane in lanes:
            found = self._release(lane, fleet)
            if found is not None:
                return found
        return Idle()

    def observe(self, event: Event, now: int) -> None:
        """Drop a withdrawn work; other events change nothing, because the order is fixed at submission."""
        if isinstance(event, Withdrawn):
            self._forget(event.work)

    def _first(self, lane: Lane) -> Ranked:
        head = self._lanes[lane].head()
        # A lane without works is deleted at once.
        assert head is not None
        return head

    def _release(self, lane: Lane, fleet: Fleet) -> Dispatch | None:
        heap = self._lanes[lane]
        passed: list[Ranked] = []
        decision = None
        while len(passed) < self._look_ahead and (head := heap.head()) is not None:
            place = fleet.pick(head[3])
            if place is not None:
                decision = Dispatch(work=head[3], place=place)
                break
            passed.append(heap.pop())
        for entry in passed:
            heap.put_back(entry)
        if decision is not None:
            self._forget(decision.work)
        return decision

    def _forget(self, work: Work) -> None:
        heap = self._lanes.get(work.lane)
        if heap is not None and heap.discard(work.id) is not None and not heap:
            del self._lanes[work.lane]


# ---------------------------------------------------------------- policies by name


def split_options(name: str) -> tuple[str, dict[str, bool | int | float | str]]:
    """Read ``NAME?option=value&…``: a policy's name, and what its constructor is given."""
    name, _, query = name.partition("?")
    return name, {key: _value(text) for key, text in parse_qsl(query, keep_blank_values=True)}


def _value(text: str) -> bool | int | float | str:
    if text in ("on", "true", "off", "false"):
        return text in ("on", "true")
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def create(policy: object, *, seed: int = 0, options: Mapping[str, object] | None = None) -> object:
    """Instantiate a policy class with its options; a constructor with a parameter named ``seed`` receives it."""
    if not isinstance(policy, type):
        return policy
    given = dict(options or {})
    parameters = inspect.signature(policy).parameters
    known = [name for name in parameters if name != "seed"]
    unknown = [name for name in given if name not in known]
    if unknown:
        help = f"options of {policy.__name__}: {', '.join(known)}" if known else f"{policy.__name__} has no options"
        raise ConfigError("[scheduler]", f"no option is named {unknown[0]!r}.{suggest(unknown[0], known)}", help)
    for name, value in given.items():
        if isinstance(parameters[name].default, bool) and not isinstance(value, bool):
            raise ConfigError("[scheduler]", f"option {name!r} is {value!r}", "write on or off")
    try:
        return policy(seed=seed, **given) if "seed" in parameters else policy(**given)
    except Exception as error:
        help = "a policy is made with keyword options that all have defaults, and an optional `seed`"
        raise PluginError(policy.__name__, f"cannot be made: {type(error).__name__}: {error}", help) from error


def scheduler_named(name: str, registry: Registry, *, seed: int = 0) -> Scheduler:
    """Make the scheduler of requests called `name`: a `Scheduler` as it is, an `Ordering` inside a `KeyedScheduler`.

    The name may carry options: ``hybrid?release=off``.
    """
    name, options = split_options(name)
    policy = create(registry[name], seed=seed, options=options)
    if isinstance(policy, Scheduler):
        return policy
    if isinstance(policy, Ordering):
        return KeyedScheduler(policy)
    raise PluginError(
        registry.origin(name),
        f"scheduler {name!r} is neither an Ordering nor a Scheduler",
        "give it the method rank, or submit, next and observe",
    )


def ordering_named(name: str, registry: Registry, *, where: str = "[scheduler] jobs", seed: int = 0) -> Ordering:
    """Make the ordering of jobs called `name`; a policy that cannot rank is refused, naming the ones that can."""
    name, options = split_options(name)
    policy = create(registry[name], seed=seed, options=options)
    if isinstance(policy, Ordering):
        return policy
    able = [other for other in registry if other != name and hasattr(registry[other], "rank")]
    raise ConfigError(
        where,
        f"{name!r} decides at run time and cannot rank jobs, whose order is fixed when they are enqueued",
        f"these can: {', '.join(able)}" if able else "install a plugin whose scheduler has a rank",
    )


# ---------------------------------------------------------------- helpers for selectors


def prefer_low(values: Mapping[str, float]) -> dict[str, float]:
    """Scores from amounts of which less is better: the least gets 1, the most 0, all get 1 when they are equal."""
    low, high = min(values.values(), default=0.0), max(values.values(), default=0.0)
    span = high - low
    return {name: (high - value) / span for name, value in values.items()} if span else dict.fromkeys(values, 1.0)
