from __future__ import annotations

import re

import pytest

from sage_core.platform.attempts import held_from
from sage_core.platform.compile import dialect_of, one_line
from sage_core.platform.database import Dialect
from sage_core.platform.queries import CLAIMED, HELD, JOB, RUN, queries
from sage_core.platform.reader import claimed_job
from sage_core.platform.records import JobRow, StoredRun
from sage_core.platform.spelling import DIALECTS


def texts(dialect: Dialect) -> dict[str, str]:
    engine = dialect_of(dialect)
    return {name: one_line(str(statement.compile(dialect=engine))) for name, statement in queries(dialect).items()}


def test_columns_come_in_the_order_of_the_record_they_fill() -> None:
    assert [column.name for column in JOB] == list(JobRow.__struct_fields__)
    assert [column.name for column in RUN] == list(StoredRun.__struct_fields__)


def test_what_a_claim_returns_is_what_the_reader_takes_it_for() -> None:
    # The values of a row are the columns' own names.
    job = claimed_job(tuple(column.name for column in CLAIMED))
    assert [getattr(job, name) for name in job.__struct_fields__] == list(job.__struct_fields__)
    held = held_from(tuple(column.name for column in HELD))
    assert [getattr(held, name) for name in held.__struct_fields__] == list(held.__struct_fields__)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_write_about_a_running_job_asks_whether_it_runs(dialect: Dialect) -> None:
    made = texts(dialect)
    for name in ("finish", "renew", "renew_workers", "settle", "unclaim", "held_one", "held_pairs", "held_worker"):
        assert re.search(r"state[ |')]* = 'running'", made[name]), name
    for name in ("finish", "renew", "settle", "unclaim", "held_one", "held_pairs"):
        assert "job.fence" in made[name], name


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_fence_is_raised_by_whoever_takes_a_job_and_by_nothing_else(dialect: Dialect) -> None:
    setting = {
        name
        for name, text in texts(dialect).items()
        if re.search(r"UPDATE job SET .*\bfence\s*=", text.partition(" WHERE job.id")[0])
    }
    assert setting == {"claim", "claim_run", "job_seize"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_statement_that_takes_jobs_back_locks_them(dialect: Dialect) -> None:
    held = {name: text for name, text in texts(dialect).items() if name.startswith("held_")}
    assert len(held) >= 5
    # SQLite locks the whole database instead.
    assert all(("FOR UPDATE" in text) is (dialect == "postgresql") for text in held.values())


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_locks_several_jobs_locks_them_in_one_order_or_passes_by(dialect: Dialect) -> None:
    made = texts(dialect)
    several = {"held_pairs", "held_worker", "held_run", "held_left", "renew", "renew_workers"}
    assert {name for name in made if name.startswith("held_")} == several - {"renew", "renew_workers"} | {
        "held_one",
        "held_expired",
    }
    for name in several:
        assert re.search(r"ORDER BY (\S+ != 'running', )?job\.id( FOR UPDATE)?(\)|$)", made[name]), name
    assert ("SKIP LOCKED" in made["held_expired"]) is (dialect == "postgresql")


def test_both_databases_ask_for_the_same_parameters() -> None:
    sqlite, postgres = texts("sqlite"), texts("postgresql")
    # What PostgreSQL says in one statement, SQLite says in three.
    whole = {"finish", "finish_history", "finish_result"}
    assert sqlite.keys() - postgres.keys() == whole - {"finish"}
    assert postgres.keys() <= sqlite.keys()
    asked = {name: set(re.findall(r"(?<!:):(\w+)", sqlite[name])) for name in whole}
    assert set.union(*asked.values()) == set(re.findall(r"%\((\w+)\)s", postgres["finish"]))
    for name in postgres.keys() - whole:
        one = set(re.findall(r"(?<!:):(\w+)", sqlite[name]))
        # SQLite's writers take turns in any case, so there this lock names nothing.
        assert one == set(re.findall(r"%\((\w+)\)s", postgres[name])) or name == "node_lock", name
