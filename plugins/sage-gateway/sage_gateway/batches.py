"""``/v1/batches``."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

from sage_gateway.app import Route
from sage_gateway.batch_records import BatchRecord
from sage_gateway.batching import ENDPOINTS, NewBatch, no_file
from sage_gateway.bodies import fields_of, read
from sage_gateway.errors import ApiError
from sage_gateway.exchange import Exchange
from sage_gateway.files import page
from sage_gateway.runs import number, seen_by

#: Batches of one answer, at most and where the request does not say; letters of a text of metadata.
MOST, SOME, _LONGEST = 100, 20, 512


async def created(exchange: Exchange) -> None:
    """Make a batch of an uploaded file."""
    gateway, account = exchange.gateway, exchange.account
    body = await exchange.body()
    fields_of(body)
    asked = read(body, NewBatch)
    if asked.endpoint not in ENDPOINTS:
        raise ApiError(400, f"endpoint {asked.endpoint!r} is none of {', '.join(ENDPOINTS)}", param="endpoint")
    for name, value in (asked.metadata or {}).items():
        if len(name) > _LONGEST or len(value) > _LONGEST:
            raise ApiError(400, f"metadata holds texts of up to {_LONGEST} letters", param="metadata")
    record = await asyncio.to_thread(gateway.files.find, asked.input_file_id)
    if record is None or seen_by(account) not in (None, record.tenant):
        raise no_file(asked.input_file_id)
    if record.purpose != "batch":
        raise ApiError(400, f"the file was uploaded for {record.purpose!r}, not for 'batch'", param="input_file_id")
    # Shielded: a client that goes away now has a batch that it does not know of, but never half of one.
    batch = await asyncio.shield(gateway.batches.create(asked, tenant=account.tenant, key=account.key))
    await exchange.answer(await gateway.batches.shown(batch))


async def listed(exchange: Exchange) -> None:
    """Batches that the account may see, newest first."""
    asked = parse_qs(exchange.query)
    limit, batches = number(asked, "limit", SOME, MOST), exchange.gateway.batches
    every = await asyncio.to_thread(lambda: list(batches.shelf.all()))
    seen = [each for each in every if seen_by(exchange.account) in (None, each.tenant)]
    part = page([{"id": each.id} for each in seen], asked, limit)
    by_id = {each.id: each for each in seen}
    part["data"] = [await batches.shown(by_id[row["id"]]) for row in part["data"]]
    await exchange.answer(part)


async def shown(exchange: Exchange) -> None:
    """One batch."""
    await exchange.answer(await exchange.gateway.batches.shown(await own(exchange)))


async def cancelled(exchange: Exchange) -> None:
    """Send no more lines of a batch."""
    batches = exchange.gateway.batches
    await exchange.answer(await batches.shown(await batches.cancel(await own(exchange))))


async def own(exchange: Exchange) -> BatchRecord:
    """The batch of the path, which the account may see; raises `ApiError` 404 for any other as for none."""
    id = exchange.path["batch"]
    batch = await asyncio.to_thread(exchange.gateway.batches.shelf.read, id)
    if batch is None or seen_by(exchange.account) not in (None, batch.tenant):
        raise ApiError(404, f"no batch has the id {id!r}", code="batch_not_found")
    return batch


ROUTES = (
    Route("POST", "/v1/batches", created),
    Route("GET", "/v1/batches", listed),
    Route("GET", "/v1/batches/{batch}", shown),
    Route("POST", "/v1/batches/{batch}/cancel", cancelled),
)
