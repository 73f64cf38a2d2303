from __future__ import annotations

import pytest

from sage_core.platform.cluster_queries import DEPLOYMENT, FIRE, NODE, SCHEDULE, WORKER, cluster_queries
from sage_core.platform.compile import dialect_of, one_line
from sage_core.platform.database import Dialect
from sage_core.platform.queries import queries
from sage_core.platform.records import DeploymentRow, FireRow, NodeRow, ScheduleRow, WorkerRow
from sage_core.platform.spelling import DIALECTS, Spelling


def texts(dialect: Dialect) -> dict[str, str]:
    engine, made = dialect_of(dialect), cluster_queries(Spelling(dialect))
    return {name: one_line(str(statement.compile(dialect=engine))) for name, statement in made.items()}


@pytest.mark.parametrize(
    ("columns", "record"),
    [(NODE, NodeRow), (DEPLOYMENT, DeploymentRow), (SCHEDULE, ScheduleRow), (FIRE, FireRow), (WORKER, WorkerRow)],
)
def test_columns_come_in_the_order_of_the_record_they_fill(
    columns: list[object], record: type[NodeRow | DeploymentRow | ScheduleRow | FireRow | WorkerRow]
) -> None:
    assert [str(column).partition(".")[2] for column in columns] == list(record.__struct_fields__)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_they_are_among_the_stores_statements_under_names_of_their_own(dialect: Dialect) -> None:
    mine, all_of_them = texts(dialect), queries(dialect)
    assert mine.keys() < all_of_them.keys()
    for name, text in mine.items():
        assert one_line(str(all_of_them[name].compile(dialect=dialect_of(dialect)))) == text


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_two_may_want_at_once_is_decided_by_a_key(dialect: Dialect) -> None:
    made = texts(dialect)
    for name in ("fire_insert", "slot_insert", "blob_insert"):
        assert "ON CONFLICT DO NOTHING" in made[name], name
    for name in ("node_announce", "spawn_take", "computing_take"):
        # Only some of those who come second may have it.
        assert " WHERE " in made[name].partition("DO UPDATE SET")[2], name


@pytest.mark.parametrize("dialect", DIALECTS)
def test_who_looks_at_what_is_due_or_reserves_keeps_others_from_it(dialect: Dialect) -> None:
    made = texts(dialect)
    for name, lock in (("schedules_due", "FOR UPDATE SKIP LOCKED"), ("slot_lock", "FOR UPDATE")):
        assert made[name].endswith(lock) is (dialect == "postgresql"), name
    assert ("pg_advisory_xact_lock" in made["node_lock"]) is (dialect == "postgresql")
