"""Request bodies: JSON objects read strictly, with every field that is not looked at kept as it was written."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, TypeVar

import msgspec

from sage_gateway.errors import ApiError

T = TypeVar("T")
Fields = dict[str, msgspec.Raw]
_FIELDS = msgspec.json.Decoder(Fields)
#: Objects of one body, which are looked at one by one while everybody waits.
MOST_OBJECTS = 100_000
_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*)`")


def fields_of(body: bytes) -> Fields:
    """The object's fields, unread; raises `ApiError` 400 for what is no JSON object, or has a field twice in an object.

    At every depth: an engine gets the body as it was sent, and might take the other one of the two.
    """
    try:
        # What is kept unread is not checked by the decoder.
        text = str(body, "utf-8")
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not UTF-8: byte {error.start} cannot be read", code="invalid_json") from None
    try:
        fields = _FIELDS.decode(body)
    except msgspec.ValidationError:
        raise ApiError(400, "the body is JSON, but not an object", code="invalid_json") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    _refuse_duplicates(text)
    return fields


def read(body: bytes, kind: type[T]) -> T:
    """The body as a record, whose fields may be null where they have a default; raises `ApiError` 400."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None


def invalid(error: msgspec.ValidationError) -> ApiError:
    """Say which field is wrong, and how."""
    message = str(error)
    found = _PATH.search(message)
    problem = message[: found.start()] if found else message
    param = found["path"] or None if found else None
    told = f"{param}: {problem}" if param else problem
    return ApiError(400, told.replace("`", "'"), code="invalid_type", param=param)


class _Twice(Exception):
    """A name that one object has twice."""


class _TooMany(Exception):
    """More objects than are looked at."""


class _Objects:
    """Looks at each object of a body, and keeps none of them."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, found: list[tuple[str, Any]]) -> None:
        _once(found)
        self._count += 1
        if self._count > MOST_OBJECTS:
            raise _TooMany


def _once(found: list[tuple[str, Any]]) -> None:
    if len(found) > 1 and len(dict(found)) != len(found):
        raise _Twice(next(name for name, count in Counter(name for name, _ in found).items() if count > 1))


#: For bodies that are too small to hold too many objects, which saves making one for each.
_SMALL = json.JSONDecoder(object_pairs_hook=_once)


def _refuse_duplicates(text: str) -> None:
    decoder = _SMALL if len(text) <= 2 * MOST_OBJECTS else json.JSONDecoder(object_pairs_hook=_Objects())
    try:
        decoder.decode(text)
    except _Twice as twice:
        (name,) = twice.args
        message = f"an object of the body has the field {name!r} twice"
        raise ApiError(400, message, code="duplicate_key", param=name) from None
    except _TooMany:
        raise ApiError(400, f"the body has more than {MOST_OBJECTS} objects", code="invalid_value") from None
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
