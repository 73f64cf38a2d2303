"""The tables against the records that are read from them; tests/migrations holds them against the database."""

from __future__ import annotations

import msgspec
import pytest

from sage_core.platform.records import (
    AttemptRow,
    DeploymentRow,
    FileDigest,
    FireRow,
    JobRow,
    NodeRow,
    ScheduleRow,
    StoredRun,
    WorkerRow,
)
from sage_core.platform.tables import metadata


@pytest.mark.parametrize(
    ("record", "name"),
    [
        (StoredRun, "run"),
        (JobRow, "job"),
        (AttemptRow, "attempt"),
        (WorkerRow, "worker"),
        (FileDigest, "file_digest"),
        (NodeRow, "node"),
        (DeploymentRow, "deployment"),
        (ScheduleRow, "schedule"),
        (FireRow, "fire"),
    ],
    ids=lambda each: str(each),
)
def test_a_record_has_the_columns_of_its_table_and_null_where_they_may_be(
    record: type[msgspec.Struct], name: str
) -> None:
    columns = metadata.tables[name].columns
    assert set(record.__struct_fields__) == {column.name for column in columns}
    optional = {
        field.name for field in msgspec.structs.fields(record) if type(None) in getattr(field.type, "__args__", ())
    }
    assert optional == {column.name for column in columns if column.nullable}


def test_what_belongs_to_a_run_goes_with_it() -> None:
    owners = {
        (key.parent.table.name, key.column.table.name): key.ondelete
        for table in metadata.tables.values()
        for key in table.foreign_keys
    }
    assert owners == dict.fromkeys(
        [("job", "run"), ("edge", "job"), ("attempt", "job"), ("schedule", "deployment"), ("fire", "schedule")],
        "CASCADE",
    )


def test_constraints_and_indexes_have_names_of_their_own() -> None:
    names: list[object] = [index.name for table in metadata.tables.values() for index in table.indexes]
    names += [key.name for table in metadata.tables.values() for key in table.constraints]
    assert None not in names
    assert len(set(names)) == len(names)
