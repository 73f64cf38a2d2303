"""The tables of keys: every key says what it is for, and its shape and its reader agree."""

from __future__ import annotations

import jsonschema  # type: ignore[import-untyped]
import pytest

from sage_core.common.errors import BadValue
from sage_core.kernel.dataflow import layout
from sage_core.kernel.dataflow.keys import Key

TABLES = {name: table for name, table in vars(layout).items() if name.isupper() and isinstance(table, dict)}
TABLES = {name: table for name, table in TABLES.items() if all(isinstance(each, Key) for each in table.values())}
KEYS = {f"{name}.{key}": entry for name, table in TABLES.items() for key, entry in table.items()}


def test_the_tables_are_all_there() -> None:
    assert {"TOP", "STEP", "JOIN", "RETRY", "NEEDS", "REPEAT", "CRON", "HTTP", "DEFAULTS"} <= TABLES.keys()


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_key_has_a_shape_that_editors_understand(key: Key) -> None:
    jsonschema.Draft202012Validator.check_schema(key.schema)


@pytest.mark.parametrize("name", [name for name in KEYS if name.split(".")[0] in ("STEP", "JOIN", "CRON")])
def test_an_editor_is_told_what_a_key_is_for(name: str) -> None:
    schema = KEYS[name].schema
    # What stands beside a reference is not read: there the definition says what it is.
    assert "$ref" in schema or schema.get("description"), name


@pytest.mark.parametrize(
    ("table", "key", "good", "bad", "problem"),
    [
        (layout.STEP, "max_errors", "1%", "150%", "'max_errors' cannot be"),
        (layout.STEP, "cache", "off", "never", "'cache' cannot be"),
        (layout.STEP, "limit", "gpu.one", "gpu one", "limit"),
        (layout.RETRY, "on", ["timeout"], ["timeuot"], "'timeuot' is no cause that can be retried"),
        (layout.CRON, "schedule", "0 3 * * *", "0 25 * * *", "cron field hour"),
        (layout.CRON, "name", "nightly-1", "every night", "cannot name a trigger"),
    ],
)
def test_a_reader_takes_what_the_table_means_and_says_what_is_wrong(
    table: layout.Table, key: str, good: object, bad: object, problem: str
) -> None:
    read = table[key].read
    assert read is not None
    read(good)
    with pytest.raises(BadValue, match=problem):
        read(bad)
