from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from sage_core.common.records import RunStatus
from sage_core.platform import records
from sage_core.platform import tables as t
from sage_core.platform.records import ENDED, JobRow, NewJob, NewRun, StoredRun

ROWS = {
    "attempt": records.AttemptRow,
    "deployment": records.DeploymentRow,
    "file_digest": records.FileDigest,
    "fire": records.FireRow,
    "job": records.JobRow,
    "node": records.NodeRow,
    "run": records.StoredRun,
    "schedule": records.ScheduleRow,
    "worker": records.WorkerRow,
}


@pytest.mark.parametrize("table", ROWS)
def test_a_row_has_the_columns_of_its_table(table: str) -> None:
    assert {*ROWS[table].__struct_fields__} == {column.name for column in t.metadata.tables[table].c}


@pytest.mark.parametrize("table", ROWS)
def test_what_a_column_may_leave_open_may_be_none(table: str) -> None:
    optional = {column.name for column in t.metadata.tables[table].c if column.nullable}
    fields = msgspec.inspect.type_info(ROWS[table]).fields  # type: ignore[attr-defined]
    found = {
        field.name
        for field in fields
        if isinstance(field.type, msgspec.inspect.UnionType)
        and any(isinstance(each, msgspec.inspect.NoneType) for each in field.type.types)
    }
    assert found == optional


def test_what_is_inserted_is_part_of_what_is_stored() -> None:
    assert {*NewRun.__struct_fields__} < {*StoredRun.__struct_fields__}
    # An insert says how long to wait; the store keeps until when.
    assert {*NewJob.__struct_fields__} - {*JobRow.__struct_fields__} == {"delay_ms", "patience_ms"}


def test_a_run_that_has_ended_is_neither_queued_nor_running() -> None:
    assert {*get_args(RunStatus)} - ENDED == {"queued", "running"}


def test_every_public_name_is_exported() -> None:
    assert all(hasattr(records, name) for name in records.__all__)
    rows = {
        name
        for name, value in vars(records).items()
        if isinstance(value, type) and value.__module__ == records.__name__
    }
    assert rows <= {*records.__all__}
