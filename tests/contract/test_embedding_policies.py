"""Under every installed policy a giant embed request delays a later query by one slice at most."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sage_core.builtins import default_host
from sage_core.common.clock import MILLISECOND
from sage_core.common.policies import scheduler_named
from sage_core.common.records import Caller, Capacity
from sage_core.kernel.control_plane.events import DispatchBatch, End, Outline
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.testing.virtual import EngineModel, VirtualDriver

SCHEDULERS = default_host().schedulers
GIANT, SLICE_ROWS = 2_048, 16
BATCH, ROW = 2 * MILLISECOND, MILLISECOND
SLICE = BATCH + SLICE_ROWS * ROW


def outline(name: str, texts: int, caller: Caller) -> Outline:
    keys = tuple(f"{name} {number}" for number in range(texts))
    return Outline(id=name, kind="embed", model="m", lane="m", caller=caller, sizes=(240,) * texts, keys=keys)


def waits(policy: str, giant: Caller, query: Caller, at: Sequence[int]) -> list[int]:
    """How long each of the queries that come at these times is not dispatched; every request is answered."""
    manager = ControlPlaneManager(lambda name: scheduler_named(policy, SCHEDULERS))
    model = EngineModel(capacity=Capacity(batch_tokens=62 * SLICE_ROWS), batch=BATCH, row=ROW)
    driver = VirtualDriver(manager, model)
    driver.submit(0, outline("giant", GIANT, giant))
    for number, moment in enumerate(at):
        driver.submit(moment, outline(f"query {number}", 1, query))
    driver.advance()
    ends = {action.request: action.outcome for _, action in driver.actions if isinstance(action, End)}
    assert ends == {"giant": "done", **{f"query {number}": "done" for number in range(len(at))}}
    assert manager.faults == ()
    assert manager.held == 0
    first = {
        request: now
        for now, action in driver.actions
        if isinstance(action, DispatchBatch)
        for request, _ in action.rows
    }
    return [first[f"query {number}"] - moment for number, moment in enumerate(at)]


@pytest.mark.parametrize("policy", list(SCHEDULERS))
@pytest.mark.parametrize("alike", [True, False], ids=["same tenant and class", "an interactive query"])
def test_a_query_waits_for_one_slice_at_most(policy: str, alike: bool) -> None:
    giant = Caller() if alike else Caller(tenant="bulk", service_class="batch")
    query = Caller() if alike else Caller(tenant="app", service_class="interactive", remaining=500 * MILLISECOND)
    # Each has been answered before the next one comes, and they come at different moments of a slice.
    at = [number * 97 * MILLISECOND + 1 for number in range(1, 21)]
    assert max(waits(policy, giant, query, at)) <= SLICE


def test_a_policy_by_deadlines_lets_a_giant_request_go_first_whose_deadline_is_nearer() -> None:
    giant, query = Caller(remaining=2_400 * MILLISECOND), Caller(remaining=30_000 * MILLISECOND)
    assert waits("slo_aware", giant, query, [MILLISECOND])[0] > 10 * SLICE
    assert waits("fifo", giant, query, [MILLISECOND])[0] <= SLICE
