"""Scenarios: how the database is prepared, and what each actor does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sage_core.platform.records import DeploymentRow, NewJob, ScheduleRow
from sage_core.testing.store_suite import OVER
from tests.interleavings.stepped import Script
from tests.interleavings.world import World


def jobs(count: int, **fields: Any) -> list[NewJob]:
    return [NewJob(run_id="run", stage="s", part=part, **fields) for part in range(count)]


def one_job(world: World) -> list[Script]:
    world.put(*jobs(1))
    return [world.claims("a"), world.claims("b")]


def lease_over(world: World) -> list[Script]:
    world.put(*jobs(1))
    world.hold(lease_ms=OVER)
    return [world.finishes(0), world.claims("b")]


def taken_back_and_claimed(world: World) -> list[Script]:
    world.put(*jobs(2, max_attempts=5))
    world.hold(lease_ms=OVER)
    return [world.claims("a", then="keep"), world.claims("b", then="keep")]


def renewed_late(world: World) -> list[Script]:
    world.put(*jobs(1))
    world.hold(lease_ms=OVER)
    return [world.renews_and_finishes(0), world.claims("b")]


def failed_late(world: World) -> list[Script]:
    world.put(*jobs(1, max_attempts=5))
    world.hold(lease_ms=OVER)
    return [world.fails(0), world.claims("b")]


def buried_late(world: World) -> list[Script]:
    world.put(*jobs(2, max_attempts=5))
    world.hold(2)
    return [world.finishes(1), world.buries()]


def given_back_and_buried(world: World) -> list[Script]:
    world.put(*jobs(2, max_attempts=5))
    world.hold(2)
    return [world.gives_back(), world.buries()]


def last_two_of_a_collect(world: World) -> list[Script]:
    world.put(*jobs(3), edges=[(0, 2), (1, 2)])
    world.hold(2)
    return [world.finishes(0), world.finishes(1)]


def one_result_twice(world: World) -> list[Script]:
    world.put(*jobs(2), edges=[(0, 1)])
    world.hold()
    return [world.finishes(0), world.finishes(0)]


def expanded_beside(world: World) -> list[Script]:
    world.put(*jobs(3), edges=[(0, 2), (1, 2)])
    world.hold(2)
    return [world.finishes(0, parts=2), world.finishes(1)]


def expanded_and_cancelled(world: World) -> list[Script]:
    world.put(*jobs(2), edges=[(0, 1)])
    world.hold()
    return [world.finishes(0, parts=2), world.cancels()]


def claimed_and_cancelled(world: World) -> list[Script]:
    world.put(*jobs(2))
    return [world.claims("a", limit=2), world.cancels()]


def finished_and_resumed(world: World) -> list[Script]:
    world.put(*jobs(2), edges=[(0, 1)])
    world.hold()
    return [world.finishes(0), world.resumes()]


def added_behind(world: World) -> list[Script]:
    world.put(*jobs(1))
    world.hold()
    return [world.finishes(0), world.adds_behind(0)]


def one_slot(world: World) -> list[Script]:
    world.put(*jobs(2, limit_key="k"), slots=1)
    return [world.claims("a", then="keep"), world.claims("b", then="keep")]


def one_slot_handed_on(world: World) -> list[Script]:
    world.put(*jobs(3, limit_key="k"), slots=1)
    return [world.claims("a", tries=2), world.claims("b", limit=2)]


def one_key(policy: str) -> Callable[[World], list[Script]]:
    def scenario(world: World) -> list[Script]:
        world.put()
        world.enqueues("zero", "error")(world.store)
        world.answers.clear()
        return [world.enqueues("one", policy), world.enqueues("two", policy)]

    return scenario


def computed_twice(world: World) -> list[Script]:
    world.put(*jobs(2))
    world.hold(2)
    return [world.takes_key(0), world.takes_key(1)]


def one_fire(world: World) -> list[Script]:
    world.put()
    with world.store.transaction() as tx:
        tx.deploy(
            DeploymentRow(
                name="d", version=1, workflow="w", graph=b"", graph_hash="", params=b"", options=b"", queue="q"
            )
        )
        tx.put_schedule(ScheduleRow(id="s", deployment="d", spec="{}", next_at=1))
    return [world.ticks("one"), world.ticks("two")]


def one_node(world: World) -> list[Script]:
    world.put()
    return [world.announces("a"), world.announces("b")]


def three_claim_two(world: World) -> list[Script]:
    world.put(*jobs(2))
    return [world.claims("a"), world.claims("b"), world.claims("c")]


def three_around_a_lease(world: World) -> list[Script]:
    world.put(*jobs(2, max_attempts=9), edges=[(0, 1)])
    world.hold(lease_ms=OVER)
    return [world.renews_and_finishes(0), world.claims("b", tries=2), world.buries()]


def three_and_a_cancel(world: World) -> list[Script]:
    world.put(*jobs(2), edges=[(0, 1)])
    world.hold(lease_ms=OVER)
    return [world.finishes(0, parts=1), world.claims("b", limit=2), world.cancels()]


def three_and_one_slot(world: World) -> list[Script]:
    world.put(*jobs(3, limit_key="k"), slots=1)
    return [world.claims("a"), world.claims("b", then="keep"), world.claims("c", tries=2)]


#: Name → how the database is prepared, and what the actors do.
TWO: dict[str, Callable[[World], list[Script]]] = {
    made.__name__: made
    for made in (
        one_job,
        lease_over,
        taken_back_and_claimed,
        renewed_late,
        failed_late,
        buried_late,
        given_back_and_buried,
        last_two_of_a_collect,
        one_result_twice,
        expanded_beside,
        expanded_and_cancelled,
        claimed_and_cancelled,
        finished_and_resumed,
        added_behind,
        one_slot,
        one_slot_handed_on,
        computed_twice,
        one_fire,
        one_node,
    )
} | {f"one_key_{policy}": one_key(policy) for policy in ("ignore", "replace", "error")}
THREE = {
    made.__name__: made for made in (three_claim_two, three_around_a_lease, three_and_a_cancel, three_and_one_slot)
}


def verdict(name: str, world: World) -> None:
    """What must hold at the end of a scenario beside what always must."""
    if name.startswith("one_key"):
        live = [run.id for run in world.store.runs() if run.status == "queued"]
        assert len(live) == 1, f"a unique key has {live}"
    elif name == "computed_twice":
        assert sorted(world.answers) == [False, True], "a key is computed by two, or by nobody"
    elif name == "one_fire":
        assert len(world.answers) == len(world.store.fires()) == 1, "a fire time fired twice, or never"
    elif name == "one_node":
        assert sorted(world.answers) == [False, True], "a node has two supervisors, or none"
    world.check()
