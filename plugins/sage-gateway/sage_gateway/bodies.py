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
_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*)`")


def fields_of(body: bytes) -> Fields:
    """The object's fields, unread; raises `ApiError` 400 for what is no JSON object, or names a field twice."""
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
    # A name that is there only once in all the text is no duplicate; only then is it worth a slower look.
    if "\\u" in text or any(body.count(b'"%b"' % name.encode()) > 1 for name in fields):
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


def _refuse_duplicates(text: str) -> None:
    outermost: list[str] = []

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        # Called for the inner objects first: what the last call leaves is the body's own.
        outermost[:] = [name for name, _ in found]
        return dict(found)

    try:
        json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    twice = [name for name, count in Counter(outermost).items() if count > 1]
    if twice:
        raise ApiError(400, f"the field {twice[0]!r} is there twice", code="duplicate_key", param=twice[0])
