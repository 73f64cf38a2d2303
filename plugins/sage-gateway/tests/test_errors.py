from __future__ import annotations

import json

import pytest
from sage_gateway.errors import ApiError, explained

from sage_core import AttemptFailed, NoEngine, RequestRejected, UsageError


@pytest.mark.parametrize(
    ("error", "status", "code", "after"),
    [
        (RequestRejected("the queue is full", 2.4), 429, "overloaded", b"3"),
        (RequestRejected("never"), 429, "overloaded", None),
        (NoEngine("chat", "none is configured", 7.0), 503, "no_engine", b"7"),
        (AttemptFailed("chat", "status 500"), 502, "engine_failed", None),
        (UsageError("wrong", "write it otherwise"), 400, None, None),
        (KeyError("secret"), 500, "internal_error", None),
    ],
)
def test_what_an_error_becomes(error: Exception, status: int, code: str | None, after: bytes | None) -> None:
    told = explained(error)
    assert (told.status, told.code) == (status, code)
    assert dict(told.headers).get(b"retry-after") == after


def test_a_defect_tells_nothing_of_itself() -> None:
    assert b"secret" not in explained(KeyError("secret")).body


def test_the_shape_is_that_of_openai() -> None:
    error = ApiError(404, "no\n  help: try another", code="model_not_found", param="model")
    assert json.loads(error.body) == {
        "error": {
            "message": "no; try another",
            "type": "not_found_error",
            "param": "model",
            "code": "model_not_found",
        }
    }
