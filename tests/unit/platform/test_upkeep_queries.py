from __future__ import annotations

import pytest

from sage_core.platform.compile import dialect_of, one_line
from sage_core.platform.database import Dialect
from sage_core.platform.queries import queries
from sage_core.platform.records import AttemptRow, JobRow
from sage_core.platform.spelling import DIALECTS, Spelling
from sage_core.platform.upkeep_queries import ATTEMPT, JOB, upkeep_queries


def texts(dialect: Dialect) -> dict[str, str]:
    engine, made = dialect_of(dialect), upkeep_queries(Spelling(dialect))
    return {name: one_line(str(statement.compile(dialect=engine))) for name, statement in made.items()}


def test_columns_come_in_the_order_of_the_record_they_fill() -> None:
    assert [column.name for column in JOB] == list(JobRow.__struct_fields__)
    assert [column.name for column in ATTEMPT] == list(AttemptRow.__struct_fields__)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_only_what_is_old_enough_and_over_is_removed(dialect: Dialect) -> None:
    removing = {name: text for name, text in texts(dialect).items() if text.startswith("DELETE")}
    assert removing.keys() == {name for name in texts(dialect) if name.endswith("_prune")}
    assert all("keep_ms" in text for text in removing.values())
    assert "run.status IN ('succeeded', 'partial', 'failed', 'cancelled')" in removing["runs_prune"]
    assert "NOT (EXISTS (SELECT * FROM job WHERE job.result_key = result." in removing["results_prune"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_they_are_among_the_stores_statements_under_names_of_their_own(dialect: Dialect) -> None:
    assert texts(dialect).keys() < queries(dialect).keys()
