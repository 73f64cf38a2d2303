"""The steps of a batch: read its lines, ask the gateway for each, and write what came of them.

They run in worker processes like those of any workflow. A line is asked for again when the gateway or the worker dies,
and written once: what is written are the rows of finished jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sage_core import Artifact, ArtifactDir, Batch, operator
from sage_gateway.batch_records import CANCELLED, EXPIRED, Counts, Progress, read_record
from sage_gateway.beacon import seen
from sage_gateway.posting import Posted, post

#: Seconds between two looks at whether a batch was cancelled.
LOOK = 1.0
#: Seconds before a line is sent again: the first time, and at most.
SOON, LATER = 0.2, 20.0
#: Answers after which a line is sent again: refused under load, or no engine; and how often where an engine failed.
_AGAIN = frozenset((408, 429, 503))
_BROKEN, _TRIES = frozenset((500, 502, 504)), 3


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an input file."""

    number: int
    custom_id: str
    #: The request's body, as JSON.
    body: str


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a line."""

    number: int
    custom_id: str
    #: HTTP status; 0 where it was not sent.
    status: int
    #: The answer's body.
    answer: str
    #: Of the request in the gateway, for its decision record.
    request: str
    #: Why it was not sent, or an empty string.
    code: str


class BatchFiles(Artifact):
    """``output.jsonl``, ``error.jsonl`` and ``counts.json``."""


class InputLine(msgspec.Struct):
    """A line as its author writes it."""

    custom_id: str
    body: msgspec.Raw
    method: str = "POST"
    url: str = ""


@operator("gateway.lines", pure=False)
def lines(*, path: str) -> Iterator[Line]:
    """The lines of a batch, which were checked when it was created."""
    with open(path, "rb") as file:
        for number, data in enumerate(file):
            if data.strip():
                found = msgspec.json.decode(data, type=InputLine)
                yield Line(number=number, custom_id=found.custom_id, body=bytes(found.body).decode())


@operator("gateway.ask", pure=False)
async def ask(number: int, custom_id: str, body: str, *, endpoint: str, record: str, beacon: str) -> Answered:
    """Send a line to the gateway, at class batch, until it is answered, or the batch is cancelled or expires."""
    sent = await _Sender(endpoint, Path(record), Path(beacon)).send(body.encode())
    Progress(Path(record)).add(number, good=_good(sent.status))
    return Answered(
        number=number,
        custom_id=custom_id,
        status=sent.status,
        answer=sent.body.decode("utf-8", "replace"),
        request=sent.request,
        code=sent.code,
    )


class _Sender:
    """Sends one line."""

    def __init__(self, endpoint: str, record: Path, beacon: Path) -> None:
        self._endpoint = endpoint
        self._record = record
        self._beacon = beacon

    async def send(self, body: bytes) -> Posted:
        wait, tries = SOON, 0
        while not (code := self._stopped()):
            # A gateway that is away is waited for: the window of the batch ends the wait.
            with contextlib.suppress(OSError):
                answer = await self._once(body)
                if answer.code:
                    return answer
                tries += 1
                broken = answer.status in _BROKEN and tries < _TRIES
                # A budget that is spent does not come back.
                busy = answer.status in _AGAIN and b"insufficient_quota" not in answer.body
                if not (broken or busy):
                    return answer
                wait = max(wait, answer.retry_after)
            await asyncio.sleep(min(wait, LATER))
            wait = min(2 * wait, LATER)
        return Posted(code=code)

    async def _once(self, body: bytes) -> Posted:
        """One attempt, given up when the batch is stopped. Raises `OSError` where no gateway answers."""
        gateway, batch = seen(self._beacon), read_record(self._record)
        if gateway is None or batch is None:
            raise ConnectionError("no gateway has run here")
        headers = {
            "authorization": f"Bearer {gateway.token(batch.key)}",
            "x-sage-class": "batch",
            "x-sage-tenant": batch.tenant,
        }
        sending = asyncio.ensure_future(post(gateway.url + self._endpoint, headers, body))
        try:
            while True:
                done, _ = await asyncio.wait({sending}, timeout=LOOK)
                if done:
                    return sending.result()
                if code := self._stopped():
                    return Posted(code=code)
        finally:
            sending.cancel()

    def _stopped(self) -> str:
        batch = read_record(self._record)
        return CANCELLED if batch is None else batch.stopped(time.time())


@operator("gateway.write", returns="files", pure=False)
class Write:
    """Writes the answers in the order of their lines, and apart from them what failed."""

    def __init__(self) -> None:
        self._rows: list[Answered] = []

    def add(self, rows: Batch[Answered]) -> None:
        self._rows += rows

    def finish(self, out: ArtifactDir) -> BatchFiles:
        rows = sorted(self._rows, key=lambda row: row.number)
        good = [row for row in rows if _good(row.status)]
        bad = [row for row in rows if not _good(row.status)]
        for name, chosen in (("output.jsonl", good), ("error.jsonl", bad)):
            with open(out.path / name, "wb") as file:
                file.writelines(_line(row) for row in chosen)
        counts = Counts(
            completed=len(good),
            failed=len(bad),
            cancelled=sum(row.code == CANCELLED for row in bad),
            expired=sum(row.code == EXPIRED for row in bad),
        )
        (out.path / "counts.json").write_bytes(msgspec.json.encode(counts))
        return out.publish(BatchFiles)


_MESSAGES = {
    CANCELLED: "the batch was cancelled before this line was answered",
    EXPIRED: "the batch's completion window ended before this line was answered",
}


def _good(status: int) -> bool:
    return 200 <= status < 300


def _line(row: Answered) -> bytes:
    response = None
    if row.status:
        try:
            body: object = msgspec.Raw(row.answer.encode())
            msgspec.json.decode(row.answer)
        except msgspec.DecodeError:
            body = row.answer
        response = {"status_code": row.status, "request_id": row.request, "body": body}
    error = {"code": row.code, "message": _MESSAGES.get(row.code, row.code)} if row.code else None
    told = {"id": f"batch_req_{row.number}", "custom_id": row.custom_id, "response": response, "error": error}
    return msgspec.json.encode(told) + b"\n"
