"""Whatever the order in which workers' statements reach the database, no job is lost, owned twice or released twice.

Where the schedules of a scenario are many, `SAGE_TEST_INTERLEAVINGS` says how many of them are played, or ``all``.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path

import pytest

from sage_core.common.errors import StoreError
from sage_core.platform.database import Dialect
from sage_core.platform.spelling import DIALECTS
from sage_core.platform.store import JobStore
from tests.contract.mutants import FENCE, mutant, without
from tests.interleavings.scripts import THREE, TWO, verdict
from tests.interleavings.stepped import Script, Stage, explore
from tests.interleavings.world import World
from tests.postgres import schema_url

WANTED = os.environ.get("SAGE_TEST_INTERLEAVINGS", "30")
EVERY = 200_000
SEED = 20_240
#: Scenarios with so few schedules on PostgreSQL that all are played; on SQLite all have.
FEW = {
    "added_behind",
    "buried_late",
    "computed_twice",
    "expanded_and_cancelled",
    "failed_late",
    "given_back_and_buried",
    "one_fire",
    "one_key_ignore",
    "one_node",
    "one_result_twice",
    "one_slot",
}

#: Scenarios in which locked rows are passed by.
NEVER_WAIT = {
    "lease_over",
    "one_fire",
    "one_job",
    "one_key_error",
    "one_key_ignore",
    "one_slot_handed_on",
    "renewed_late",
    "taken_back_and_claimed",
}

Scenario = Callable[[World], list[Script]]
Trace = list[tuple[list[int], int]]


def stage(dialect: Dialect, place: Path, count: int, store_class: type[JobStore] = JobStore) -> Stage:
    """Actors on a database of their own."""
    url = f"sqlite:///{place}/sage.db" if dialect == "sqlite" else schema_url(place)
    return Stage(url, count, store_class)


def play(on: Stage, name: str, scenario: Scenario, choose: Callable[[Sequence[int]], int]) -> Trace:
    """One schedule, from an empty database to the verdict."""
    world = World(on.watch)
    trace = on.play(scenario(world), choose)
    order = "".join("abc"[went] for _, went in trace)
    try:
        verdict(name, world)
    except AssertionError as error:
        raise AssertionError(f"{name}, in the order {order}: {error}") from error
    return trace


def sample(on: Stage, name: str, scenario: Scenario, count: int) -> str:
    """Play schedules drawn with a seed; the number of all is estimated from the choices there were (Knuth)."""
    random_ = random.Random(SEED)
    traces = [play(on, name, scenario, random_.choice) for _ in range(count)]
    distinct = {tuple(went for _, went in trace) for trace in traces}
    about = sum(prod(len(able) for able, _ in trace) for trace in traces) / count
    return f"{len(distinct)} of about {about:,.0f}"


def examine(on: Stage, name: str, scenario: Scenario, *, few: bool) -> str:
    """Play all schedules, or as many as are wanted; says how many of how many."""
    if few or WANTED == "all":
        count = explore(lambda choose: play(on, name, scenario, choose), EVERY)
        return f"all {count:,}"
    return sample(on, name, scenario, int(WANTED))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", TWO)
def test_two_workers(
    name: str, dialect: Dialect, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with stage(dialect, tmp_path, 2) as on:
        played = examine(on, name, TWO[name], few=dialect == "sqlite" or name in FEW)
        record_property("interleavings", f"{dialect}, two workers, {name}: {played}; {on.blocked} waits for a lock")
        # Locks are what the schedules of PostgreSQL are about: were they never met, nothing would be interleaved.
        assert on.blocked or dialect == "sqlite" or name in NEVER_WAIT


@pytest.mark.parametrize("name", THREE)
def test_three_workers_on_sqlite(name: str, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    with stage("sqlite", tmp_path, 3) as on:
        played = examine(on, name, THREE[name], few=True)
        record_property("interleavings", f"sqlite, three workers, {name}: {played}")
        assert played != "all 1"


UNFENCED = mutant("finish", FENCE)
#: Stores that lack what makes a race harmless: the database, the scenario that must find it, and the store.
RACES: dict[str, tuple[Dialect, str, type[JobStore]]] = {
    "finish without its fence, sqlite": ("sqlite", "lease_over", UNFENCED),
    "finish without its fence": ("postgresql", "lease_over", UNFENCED),
    "slots without their lock": ("postgresql", "one_slot", without("slot_lock")),
    "an edge behind a job that is not locked": ("postgresql", "added_behind", mutant("before_states", " FOR SHARE")),
    "a claim of rows that are not locked": (
        "postgresql",
        "one_slot",
        mutant("claim", r" FOR UPDATE SKIP LOCKED\)(.*) AND \S*job\.state[ |')]* = 'ready'(?= RETURNING)", r")\1"),
    ),
}


@pytest.mark.parametrize("name", RACES)
def test_a_race_is_found(name: str, tmp_path: Path) -> None:
    dialect, scenario, store_class = RACES[name]
    with (
        stage(dialect, tmp_path, 2, store_class) as on,
        pytest.raises((AssertionError, StoreError), match=r"in the order|more run than|refused by a constraint"),
    ):
        examine(on, scenario, TWO[scenario], few=dialect == "sqlite" or scenario in FEW)
