"""Holding a value against a JSON Schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jsonschema import SchemaError  # type: ignore[import-untyped]
from jsonschema.validators import validator_for  # type: ignore[import-untyped]
from referencing import Registry
from referencing.exceptions import Unresolvable

#: What a schema is written in that does not say so.
DRAFT = "https://json-schema.org/draft/2020-12/schema"


def validator(schema: Mapping[str, Any]) -> Callable[[Any], str]:
    """Check the schema, and return what says why a value does not satisfy it (an empty string: it does)."""
    dialect = schema.get("$schema", DRAFT)
    if not isinstance(dialect, str) or validator_for({"$schema": dialect}, default=None) is None:
        raise ValueError(f"option schema: $schema = {dialect!r} names no dialect that is known here: leave it out")
    kind = validator_for({"$schema": dialect})
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"option schema is no JSON Schema: {error.json_path}: {error.message}") from None
    # An empty registry: the library would otherwise fetch references over the network.
    registry: Registry[Any] = Registry()
    checker = kind(schema, registry=registry)

    def problem_of(value: Any) -> str:
        try:
            worst = min(checker.iter_errors(value), key=lambda error: error.json_path, default=None)
        except Unresolvable as error:
            raise ValueError(f"option schema: cannot resolve {error}: references must lie inside the schema") from None
        except RecursionError:
            raise ValueError(
                "option schema: a reference leads back to itself, or the value is nested too deeply"
            ) from None
        return f"{worst.json_path}: {worst.message}" if worst else ""

    return problem_of
