"""``/v1/files``: what clients upload for batches, and what batches leave, below ``.sage/files``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from sage_gateway.accounts import Account
from sage_gateway.app import Route
from sage_gateway.cabinet import LONGEST_NAME, FileRecord
from sage_gateway.errors import ApiError
from sage_gateway.exchange import Exchange
from sage_gateway.runs import number, seen_by

#: Bytes that are sent at a time, and files of one answer.
PIECE, MOST = 1 << 20, 10_000
PURPOSES = ("batch", "user_data", "assistants", "fine-tune", "evals", "vision")


async def upload(exchange: Exchange) -> None:
    """Keep the file of a form with the fields ``file`` and ``purpose``."""
    data, filename, purpose = await _form(exchange)
    if purpose not in PURPOSES:
        raise ApiError(400, f"purpose {purpose!r} is none of {', '.join(PURPOSES)}", param="purpose")
    cabinet, tenant = exchange.gateway.files, exchange.account.tenant
    record = await asyncio.to_thread(cabinet.keep, data, filename=filename, purpose=purpose, tenant=tenant)
    await exchange.answer(record.shown())


async def _form(exchange: Exchange) -> tuple[bytes, str, str]:
    kind = exchange.header(b"content-type")
    if not kind.lower().startswith("multipart/form-data") or "boundary=" not in kind:
        raise ApiError(400, "a file is sent as multipart/form-data, with the fields 'file' and 'purpose'", param="file")
    body = await exchange.body()
    boundary = parse_options_header(kind)[1].get(b"boundary", b"")
    if b"--" + boundary + b"--" not in body:
        raise ApiError(400, "the form cannot be read: it does not end with its boundary", code="invalid_form")

    async def stream() -> AsyncIterator[bytes]:
        yield body

    try:
        form = await MultiPartParser(Headers(raw=list(exchange.scope["headers"])), stream()).parse()  # type: ignore[arg-type]
    except (MultiPartException, ValueError, KeyError, UnicodeError) as error:
        problem = getattr(error, "message", "") or str(error)
        raise ApiError(400, f"the form cannot be read: {problem}", code="invalid_form") from None
    try:
        file, purpose = form.get("file"), form.get("purpose")
        if not isinstance(file, UploadFile):
            raise ApiError(400, "the form has no file in its field 'file'", param="file")
        if not isinstance(purpose, str):
            raise ApiError(400, "the form has no field 'purpose'", param="purpose")
        # A charset of the client's choice can make half characters, which no JSON holds.
        name = (file.filename or "file")[:LONGEST_NAME].encode("utf-8", "replace").decode()
        return await file.read(), name, purpose
    finally:
        await form.close()


async def listed(exchange: Exchange) -> None:
    """Files that the account may see, newest first."""
    asked = parse_qs(exchange.query)
    limit, purpose = number(asked, "limit", MOST, MOST), asked.get("purpose", [""])[0]
    records = await asyncio.to_thread(lambda: list(exchange.gateway.files.all()))
    seen = [each for each in records if _may_see(exchange.account, each) and purpose in ("", each.purpose)]
    if asked.get("order", ["desc"])[0] == "asc":
        seen.reverse()
    await exchange.answer(page([each.shown() for each in seen], asked, limit))


async def shown(exchange: Exchange) -> None:
    """One file."""
    await exchange.answer((await own(exchange, exchange.path["file"])).shown())


async def content(exchange: Exchange) -> None:
    """What is in a file."""
    record = await own(exchange, exchange.path["file"])
    try:
        file = await asyncio.to_thread(open, exchange.gateway.files.data(record.id), "rb")
    except OSError:
        raise _none(record.id) from None
    with file:
        await exchange.begin(content_type=b"application/octet-stream")
        while piece := await asyncio.to_thread(file.read, PIECE):
            await exchange.write(piece)
        await exchange.end()


async def deleted(exchange: Exchange) -> None:
    """Forget a file; batches that were made from it go on."""
    record = await own(exchange, exchange.path["file"])
    await asyncio.to_thread(exchange.gateway.files.delete, record.id)
    await exchange.answer({"id": record.id, "object": "file", "deleted": True})


async def own(exchange: Exchange, id: str) -> FileRecord:
    """A file that the account may see; raises `ApiError` 404 for any other as for none."""
    record = await asyncio.to_thread(exchange.gateway.files.find, id)
    if record is None or not _may_see(exchange.account, record):
        raise _none(id)
    return record


def page(rows: list[dict[str, Any]], asked: dict[str, list[str]], limit: int) -> dict[str, Any]:
    """The part of a list that follows the id ``after``."""
    after = asked.get("after", [""])[0]
    at = next((place + 1 for place, row in enumerate(rows) if row["id"] == after), 0) if after else 0
    part = rows[at : at + limit]
    return {
        "object": "list",
        "data": part,
        "first_id": part[0]["id"] if part else None,
        "last_id": part[-1]["id"] if part else None,
        "has_more": at + limit < len(rows),
    }


def _may_see(account: Account, record: FileRecord) -> bool:
    return seen_by(account) in (None, record.tenant)


def _none(id: str) -> ApiError:
    return ApiError(404, f"no file has the id {id!r}", code="file_not_found")


ROUTES = (
    Route("POST", "/v1/files", upload),
    Route("GET", "/v1/files", listed),
    Route("GET", "/v1/files/{file}", shown),
    Route("GET", "/v1/files/{file}/content", content),
    Route("DELETE", "/v1/files/{file}", deleted),
)
