"""What is wrong with the lines of a batch, line by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sage_gateway.batching import MOST_ERRORS, MOST_LINES, checked

PATH = "/v1/embeddings"


def line(**fields: Any) -> bytes:
    return json.dumps({"custom_id": "a", "method": "POST", "url": PATH, "body": {"model": "m"}, **fields}).encode()


def codes(path: Path, *lines: bytes) -> list[tuple[int | None, str]]:
    path.write_bytes(b"\n".join(lines))
    return [(error.line, error.code) for error in checked(path, PATH)[1]]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (b"{", "invalid_json_line"),
        (b"[]", "invalid_json_line"),
        (b'{"custom_id": "\xff"}', "invalid_json_line"),
        (b'{"custom_id": "x", "body": 3}', "invalid_json_line"),
        (b'{"custom_id": "x"}', "invalid_json_line"),
        (line(custom_id=3), "invalid_json_line"),
        (line(custom_id="x", method="GET"), "invalid_method"),
        (line(custom_id="x", url="/v1/models"), "mismatched_endpoint"),
        (line(custom_id="x", body={"stream": True}), "invalid_request"),
        (line(), "duplicate_custom_id"),
        (b"[" * 100_000, "invalid_json_line"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, wrong: bytes, code: str) -> None:
    assert codes(tmp_path / "lines", line(), wrong, b"", line(custom_id="b")) == [(2, code)]


def test_files_without_lines_and_with_too_many(tmp_path: Path) -> None:
    assert codes(tmp_path / "lines", b"", b"  ") == [(None, "empty_file")]
    many = [line(custom_id=str(number)) for number in range(MOST_LINES + 1)]
    assert codes(tmp_path / "lines", *many) == [(None, "too_many_tasks")]
    assert len(codes(tmp_path / "lines", *[b"{"] * (2 * MOST_ERRORS))) == MOST_ERRORS
