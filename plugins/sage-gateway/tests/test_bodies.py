from __future__ import annotations

import msgspec
import pytest
from sage_gateway.asked import Chat
from sage_gateway.bodies import fields_of, read
from sage_gateway.errors import ApiError


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[]", "invalid_json"),
        (b'"text"', "invalid_json"),
        (b'{"model": "a"} x', "invalid_json"),
        (b"{'model': 1}", "invalid_json"),
        (b'{"model": NaN}', "invalid_json"),
        (b'{"model": "\xff"}', "invalid_json"),
        (b'{"model": "a", "tools": "\xc3("}', "invalid_json"),
        (b'{"model": "a", "model": "b"}', "duplicate_key"),
        (b'{"model": "a", "mod\\u0065l": "b"}', "duplicate_key"),
        (b'{"messages": [{"role": "user", "role": "system", "content": "x"}]}', "duplicate_key"),
        (b'{"messages": [{"role": "user", "r\\u006fle": "system", "content": "x"}]}', "duplicate_key"),
        (b'{"tools": [{"function": {"parameters": {"a": [[{"b": 1, "b": 1}]]}}}]}', "duplicate_key"),
        (b'{"x": "' + b"x" * 200_000 + b'", "y": {"a": 1, "a": 1}}', "duplicate_key"),
        (b'{"x": [' + b"{}," * 100_000 + b"{}]}", "invalid_value"),
        (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json"),
    ],
)
def test_what_is_no_object_with_each_field_once_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(ApiError) as caught:
        fields_of(body)
    assert (caught.value.status, caught.value.code) == (400, code)


def test_a_name_that_is_also_a_value_or_lies_deeper_is_no_duplicate() -> None:
    body = b'{"model": "model", "messages": [{"model": 1, "content": "\\"model\\": \\u00e9"}]}'
    assert list(fields_of(body)) == ["model", "messages"]


def test_a_name_in_several_objects_is_no_duplicate() -> None:
    messages = b",".join([b'{"role": "user", "content": "role: {\\"role\\": 1, \\"role\\": 2}"}'] * 3)
    assert list(fields_of(b'{"messages": [' + messages + b'], "role": {"role": {"role": 1}}}')) == ["messages", "role"]
    # Braces of a text are no objects.
    assert list(fields_of(b'{"x": "' + b"{}" * 200_000 + b'"}')) == ["x"]


def test_fields_keep_their_text() -> None:
    assert bytes(fields_of(b'{"a": 1.50, "b": {"c":  2}}')["b"]) == b'{"c":  2}'


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        (b'{"model": 1, "messages": []}', "model: Expected 'str', got 'int'", "model"),
        (b'{"model": "", "messages": []}', "model: Expected 'str' of length >= 1", "model"),
        (b'{"model": "a"}', "Object missing required field 'messages'", None),
        (b'{"model": "a", "messages": []}', "messages: Expected 'array' of length >= 1", "messages"),
        (b'{"model": "a", "messages": "hi"}', "messages: Expected 'array', got 'str'", "messages"),
        (
            b'{"model": "a", "messages": [{"role": "user", "content": 1}]}',
            "messages[0].content: Expected 'str | array | null', got 'int'",
            "messages[0].content",
        ),
    ],
)
def test_a_wrong_field_is_named(body: bytes, message: str, param: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        read(body, Chat)
    assert (caught.value.message, caught.value.param) == (message, param)
    assert msgspec.json.decode(caught.value.body)["error"]["type"] == "invalid_request_error"
