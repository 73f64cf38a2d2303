"""What the tests share: works, and the order in which a policy sends them to one engine that holds one at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sage_core import SECOND, Scheduler, Work
from sage_core.testing import FakeFleet, drive


@pytest.fixture
def work() -> Callable[..., Work]:
    """Make a work that arrives at a second and holds its engine for `cost` seconds."""

    def make(id: str, *, at: float = 1.0, cost: float = 0.1, deadline: float | None = None, tenant: str = "a") -> Work:
        due = None if deadline is None else round(deadline * SECOND)
        return Work(
            id=id,
            lane="chat",
            kind="embed",
            arrival=round(at * SECOND),
            deadline=due,
            cost=cost,
            tenant=tenant,
            tokens_in=100,
        )

    return make


@pytest.fixture
def order() -> Callable[..., list[str]]:
    """Ids in the order of dispatches."""

    def run(policy: Scheduler, *works: Work) -> list[str]:
        return drive(policy, FakeFleet({"chat": {"gpu": 1}}), works).dispatched

    return run
