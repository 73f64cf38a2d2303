"""``/v1/files`` as the official client uses it."""

from __future__ import annotations

import resource

import httpx
import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from sage_gateway.testing import Running


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


def form(filename: bytes, *, charset: str = "", data: bytes = b"x") -> tuple[bytes, dict[str, str]]:
    parts = (
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="' + filename + b'"\r\n\r\n',
        data + b"\r\n--b--\r\n",
    )
    return b"".join(parts), {"content-type": f"multipart/form-data; boundary=b{charset}"}


@pytest.mark.parametrize(
    ("filename", "charset"),
    [
        (b"../../../etc/passwd", ""),
        (b"\xff\xfe", ""),
        (b"a\x00b", ""),
        (b"a" * 3_000, ""),
        (b"\\ud800", "; charset=unicode_escape"),
        (b"+2AA-", "; charset=utf-7"),
        (b"x", "; charset=undefined"),
        (b"x", "; charset=zlib_codec"),
        (b"x", "; charset=idna"),
    ],
)
def test_a_name_is_a_name_and_never_a_place(running: Running, filename: bytes, charset: str) -> None:
    body, headers = form(filename, charset=charset)
    answer = httpx.post(f"{running.url}/v1/files", content=body, headers=headers)
    assert answer.status_code in (200, 400), answer.text
    folder = running.gateway.files.folder
    assert not [path for path in folder.glob("*/*") if path.name not in ("data", "file.json")]
    assert len(httpx.get(f"{running.url}/v1/files").json()["data"]) == (answer.status_code == 200)


PURPOSE = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n'


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "does not end with its boundary"),
        (b"--b\r\n", "does not end with its boundary"),
        (b"nothing", "does not end with its boundary"),
        (b"--b--", "no file in its field"),
        (b"nothing--b--", "cannot be read"),
        (PURPOSE.replace(b"purpose", b'file"; filename="a') + b"half", "does not end with its boundary"),
        (PURPOSE.replace(b"purpose", b"file") + b"x\r\n--b--\r\n", "no file in its field"),
        (PURPOSE + b"x" * 2_000_000 + b"\r\n--b--\r\n", "cannot be read"),
        ((PURPOSE + b"x\r\n") * 1_100 + b"--b--\r\n", "cannot be read"),
    ],
)
def test_a_form_that_is_none_is_refused(running: Running, body: bytes, said: str) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = httpx.post(f"{running.url}/v1/files", content=body, headers=headers)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_a_disk_that_is_full_is_told_and_keeps_nothing(running: Running) -> None:
    most, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    body, headers = form(b"a", data=b"x" * (2 << 20))
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 19, hard))
    try:
        answer = httpx.post(f"{running.url}/v1/files", content=body, headers=headers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "storage_full")
    assert httpx.get(f"{running.url}/v1/files").json()["data"] == []
    assert not list(running.gateway.files.folder.glob("*"))
