"""``/v1/files`` as the official client uses it."""

from __future__ import annotations

import pytest
from openai import BadRequestError, NotFoundError, OpenAI


def test_files_are_kept_listed_and_forgotten(client: OpenAI) -> None:
    data = b"\x00\xff\r\n--x\r\nlast"
    made = client.files.create(file=("any name.bin", data), purpose="user_data")
    assert (made.bytes, made.filename, made.purpose, made.object) == (
        len(data),
        "any name.bin",
        "user_data",
        "file",
    )
    assert client.files.content(made.id).read() == data
    assert [file.id for file in client.files.list()] == [made.id]
    assert [file.id for file in client.files.list(purpose="batch")] == []
    assert client.files.retrieve(made.id) == made
    assert client.files.delete(made.id).deleted
    with pytest.raises(NotFoundError, match="no file has the id"):
        client.files.retrieve(made.id)
    with pytest.raises(BadRequestError, match="purpose 'fun' is none of"):
        client.files.create(file=("a", b"x"), purpose="fun")  # type: ignore[arg-type]
    for wrong in ("file-..%2F..", "file-x", "..%2F..%2Fetc"):
        with pytest.raises(NotFoundError):
            client.files.retrieve(wrong)
