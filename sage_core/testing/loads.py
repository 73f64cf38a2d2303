"""Calls that arrive by chance, the same for the same seed, and what is said of their answers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from typing import Any

from sage_core.builtins import default_host
from sage_core.common.config import Config
from sage_core.common.contracts import Scheduler
from sage_core.common.policies import scheduler_named
from sage_core.kernel.control_plane.fleet import Selects
from sage_core.kernel.scheduler.node_selector import Chain
from sage_core.testing.batching import Call


def arrivals(
    name: str,
    rate: float,
    seconds: float,
    *,
    seed: int = 0,
    start: float = 0.0,
    tokens_in: int = 400,
    tokens_out: int = 150,
    **fields: Any,
) -> list[Call]:
    """Poisson arrivals at `rate` a second, with lognormal sizes around these medians; `fields` go into each `Call`."""
    rng = random.Random(f"{seed} {name}")
    calls: list[Call] = []
    at = start
    while (at := at + rng.expovariate(rate)) < start + seconds:
        calls.append(
            Call(
                id=f"{name}{len(calls)}",
                at=at,
                tokens_in=min(8_000, 1 + int(rng.lognormvariate(math.log(tokens_in), 1.0))),
                tokens_out=min(1_000, 2 + int(rng.lognormvariate(math.log(tokens_out), 0.7))),
                **fields,
            )
        )
    return calls


def percentile(values: Iterable[float], share: float) -> float:
    """The value that this share of the values does not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def schedulers_named(default: str) -> Callable[[str], Scheduler]:
    """Make the schedulers of installed plugins by name, options included; an empty name is the default."""
    host = default_host()
    return lambda name: scheduler_named(name or default, host.schedulers)


def selector_named(name: str) -> Selects:
    """Make the node selector of an installed plugin as a chain of its own, as ``[scheduler] selector`` does."""
    return Chain.named(name, Config(), default_host().selectors, filters=())
