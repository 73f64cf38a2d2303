from __future__ import annotations

import pytest

from sage_core.platform.compile import dialect_of, one_line
from sage_core.platform.database import Dialect
from sage_core.platform.records import FileDigest
from sage_core.platform.spelling import DIALECTS, Spelling
from sage_core.platform.value_queries import FILE, value_queries


def texts(dialect: Dialect) -> dict[str, str]:
    engine, made = dialect_of(dialect), value_queries(Spelling(dialect))
    return {name: one_line(str(statement.compile(dialect=engine))) for name, statement in made.items()}


def test_columns_come_in_the_order_of_the_record_they_fill() -> None:
    assert [column.name for column in FILE] == list(FileDigest.__struct_fields__)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_kept_by_content_is_kept_once(dialect: Dialect) -> None:
    said = texts(dialect)
    assert all("ON CONFLICT DO NOTHING" in said[name] for name in ("result_insert", "memo_insert"))
    assert "ON CONFLICT (path) DO UPDATE SET" in said["file_insert"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_only_an_attempt_with_its_fence_ends_its_job(dialect: Dialect) -> None:
    said = texts(dialect)
    assert "job.fence = " in said["finish"]
    assert ("finish_result" in said) is (dialect == "sqlite")
