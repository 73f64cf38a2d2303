"""One HTTP/1.1 request and its whole answer over asyncio; closing the task closes the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec


class Posted(msgspec.Struct, frozen=True, kw_only=True):
    """An answer; `code` says why there is none."""

    status: int = 0
    body: bytes = b""
    request: str = ""
    #: Seconds after which the server wants to be asked again.
    retry_after: float = 0.0
    code: str = ""


async def post(url: str, headers: Mapping[str, str], body: bytes) -> Posted:
    """POST JSON to our own gateway, which answers with a content-length; raises `OSError` where it does not answer."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        lines = [
            f"POST {place.path} HTTP/1.1",
            f"host: {place.netloc}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "connection: close",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        writer.write("\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body)
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        found = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        if found.get("transfer-encoding") == "chunked":
            # A stream, where a whole answer was asked for: an engine's fault, and not the end of the connection.
            return Posted(status=502, body=b"the answer is a stream", request=found.get("x-sage-request-id", ""))
        data = await reader.readexactly(int(found["content-length"]))
        return Posted(
            status=int(first.split()[1]),
            body=data,
            request=found.get("x-sage-request-id", ""),
            retry_after=float(found.get("retry-after", 0)),
        )
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, KeyError, ValueError, IndexError) as error:
        raise ConnectionError(f"the gateway's answer broke off: {error}") from None
    finally:
        writer.close()
