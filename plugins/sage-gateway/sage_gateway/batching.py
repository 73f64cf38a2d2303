"""Batches: each is a durable run of ordinary jobs, which outlives the gateway and its workers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import msgspec

from sage_core import BadValue, Caller, Paths, UsageError
from sage_core.serving import ENDED, Desk, StoredRun, log, new_run_id, seconds
from sage_gateway.batch_operators import InputLine
from sage_gateway.batch_records import BatchRecord, Counts, Ending, LineError, Progress, Shelf
from sage_gateway.beacon import beacon_path
from sage_gateway.cabinet import Cabinet, share
from sage_gateway.errors import ApiError

#: Where a batch's lines may go.
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank", "/v1/responses")
#: Lines of a batch, and errors that are listed of one.
MOST_LINES, MOST_ERRORS = 50_000, 100
#: Lines of one job: what a killed worker has to ask for again at most.
PART = 32
#: Where the jobs wait, and their priority among others.
QUEUE, PRIORITY = "batches", -10
#: Seconds between two looks at whether a batch needs anything, and at what is too old to be kept.
TEND, PRUNE = 5.0, 3_600.0
_METADATA = 16
#: How runs end that leave nothing.
_UNDONE = ("failed", "cancelled")

WORKFLOW: dict[str, Any] = {
    "name": "sage-batch",
    "params": {name: {"type": "string"} for name in ("input", "endpoint", "record", "beacon")},
    "steps": {
        "lines": {"use": "gateway.lines", "with": {"path": "${params.input}"}, "partition": PART},
        "ask": {
            "use": "gateway.ask",
            "in": {name: f"lines.{name}" for name in ("number", "custom_id", "body")},
            "with": {name: f"${{params.{name}}}" for name in ("endpoint", "record", "beacon")},
        },
        "write": {
            "use": "gateway.write",
            "in": {name: f"ask.{name}" for name in ("number", "custom_id", "status", "answer", "request", "code")},
        },
    },
    "outputs": {"files": "write.files"},
}


class NewBatch(msgspec.Struct, kw_only=True):
    """``POST /v1/batches``."""

    input_file_id: str
    endpoint: str
    completion_window: str = "24h"
    metadata: Annotated[dict[str, str], msgspec.Meta(max_length=_METADATA)] | None = None


class Batches:
    """The batches of a project, and what looks after them.

    Args:
        keep: seconds that files, and batches that are over, are kept; None keeps them.
    """

    def __init__(self, desk: Desk, cabinet: Cabinet, paths: Paths, *, keep: float | None = None) -> None:
        self._desk = desk
        self._cabinet = cabinet
        self._paths = paths
        self._keep = keep
        self.shelf = Shelf(paths.project / "batches")
        #: Held by whoever changes a record: clients cancel while what looks after them ends.
        self._changing = asyncio.Lock()

    async def create(self, asked: NewBatch, *, tenant: str, key: str) -> BatchRecord:
        """Check the lines and queue the run; wrong lines make a batch that has failed."""
        now, run = int(time.time()), new_run_id()
        expires, id = now + _window(asked.completion_window), f"batch_{run}"
        try:
            total, errors = await asyncio.to_thread(self._take, id, asked)
        except OSError as error:
            await asyncio.to_thread(self.shelf.delete, id)
            if isinstance(error, FileNotFoundError):
                raise no_file(asked.input_file_id) from None
            raise
        batch = BatchRecord(
            id=id,
            run=run,
            tenant=tenant,
            key=key,
            endpoint=asked.endpoint,
            input_file_id=asked.input_file_id,
            completion_window=asked.completion_window,
            created_at=now,
            expires_at=expires,
            total=total,
            metadata=asked.metadata,
            errors=errors,
        )
        # Before its run: a gateway that dies in between starts it when it is there again.
        await asyncio.to_thread(self.shelf.write, batch)
        return batch if errors else await self._queued(batch)

    def _take(self, id: str, asked: NewBatch) -> tuple[int, tuple[LineError, ...]]:
        source = self.shelf.input(id)
        source.parent.mkdir(parents=True, exist_ok=True)
        share(self._cabinet.data(asked.input_file_id), source)
        return checked(source, asked.endpoint)

    async def _queued(self, batch: BatchRecord) -> BatchRecord:
        """Queue the run of a batch, once."""
        async with self._changing:
            batch = await self._read(batch)
            if batch.queued:
                return batch
            if await self._run(batch) is None:
                params = {
                    "input": str(self.shelf.input(batch.id)),
                    "endpoint": batch.endpoint,
                    "record": str(self.shelf.record(batch.id)),
                    "beacon": str(beacon_path(self._paths)),
                }
                caller = Caller(tenant=batch.tenant, service_class="batch")
                await self._desk.submit(WORKFLOW, params, caller, queue=QUEUE, priority=PRIORITY, run_id=batch.run)
            return await self._written(batch, queued=True)

    async def _read(self, batch: BatchRecord) -> BatchRecord:
        return await asyncio.to_thread(lambda: self.shelf.read(batch.id) or batch)

    async def _written(self, batch: BatchRecord, **changed: Any) -> BatchRecord:
        batch = msgspec.structs.replace(batch, **changed)
        await asyncio.to_thread(self.shelf.write, batch)
        return batch

    async def cancel(self, batch: BatchRecord) -> BatchRecord:
        """Send no more of its lines; what was answered is kept."""
        run = await self._run(batch)
        async with self._changing:
            batch = await self._read(batch)
            over = batch.errors or batch.ended is not None or (run is not None and run.status in ENDED)
            if over or batch.cancelling_at is not None:
                return batch
            return await self._written(batch, cancelling_at=int(time.time()))

    async def _run(self, batch: BatchRecord) -> StoredRun | None:
        try:
            return await self._desk.run(batch.run)
        except UsageError:
            return None

    # ------------------------------------------------------------ as clients read it

    async def shown(self, batch: BatchRecord) -> dict[str, Any]:
        """A batch as it stands."""
        if batch.errors or batch.ended is not None:
            return describe(batch, None, Counts())
        run = await self._run(batch)
        batch = await self._ended(batch, run)
        counts = await asyncio.to_thread(Progress(self.shelf.record(batch.id)).read)
        return describe(batch, run, counts)

    # ------------------------------------------------------------ the end of one

    async def _ended(self, batch: BatchRecord, run: StoredRun | None) -> BatchRecord:
        """Make files of what a run has left, once, and keep what it came to."""
        waits = not batch.queued if run is None else run.status not in ENDED
        # A run that failed or was stopped may be taken up again within the window.
        if waits or (run is not None and run.status in _UNDONE and time.time() < batch.expires_at):
            return batch
        async with self._changing:
            batch = await self._read(batch)
            if batch.ended is not None:
                return batch
            try:
                ending = await asyncio.to_thread(self._collected, batch, run)
            except FileNotFoundError as error:
                ending = _lost(f"what its run has left is gone: {error}")
            except OSError as error:
                # A disk that is full will have room again: tried at the next look.
                log("batch_not_ended", level=logging.WARNING, batch=batch.id, error=error)
                return batch
            return await self._written(batch, ended=ending)

    def _collected(self, batch: BatchRecord, run: StoredRun | None) -> Ending:
        if run is None:
            return _lost("its run was removed before it had ended")
        if run.status in _UNDONE:
            return msgspec.structs.replace(_lost(run.error or ""), status=run.status)
        outputs = msgspec.msgpack.decode(run.outputs) if run.outputs else {}
        folder = Path(outputs["files"]["path"])
        counts = msgspec.json.decode((folder / "counts.json").read_bytes(), type=Counts)
        files = {}
        for name, many in (("output", counts.completed), ("error", counts.failed)):
            if many:
                files[name] = id = f"file-{batch.run}-{name}"
                source, filename = folder / f"{name}.jsonl", f"{batch.id}_{name}.jsonl"
                self._cabinet.adopt(source, id, filename=filename, purpose="batch_output", tenant=batch.tenant)
        stopped = "cancelled" if batch.cancelling_at is not None else "completed"
        return Ending(
            status="expired" if counts.expired else stopped,
            started_at=_second(run.started_at),
            finished_at=_second(run.finished_at) or int(time.time()),
            counts=counts,
            files=files,
        )

    # ------------------------------------------------------------ looking after them

    async def tend(self) -> None:
        """Until cancelled: start runs that a killed gateway left unstarted, and workers where killed ones left work."""
        pruned = float("-inf")
        while True:
            waiting = False
            for batch in await asyncio.to_thread(lambda: list(self.shelf.all())):
                if not batch.errors and batch.ended is None:
                    waiting |= await self._attempt(batch.id, self._tended(batch))
            if waiting:
                await self._attempt("", self._woken())
            if time.monotonic() - pruned > PRUNE:
                pruned = time.monotonic()
                await self._attempt("", self._pruned())
            await asyncio.sleep(TEND)

    async def _attempt(self, batch: str, work: Coroutine[Any, Any, bool]) -> bool:
        """One thing of many, which must not keep the others from being done."""
        try:
            return await work
        except Exception as error:  # noqa: BLE001 - see above; it is tried again at the next look
            log("batches_not_tended", level=logging.WARNING, batch=batch, error=error)
            return True

    async def _tended(self, batch: BatchRecord) -> bool:
        """Give a batch what it needs; whether it waits for workers."""
        if not batch.queued:
            await self._queued(batch)
            return True
        run = await self._run(batch)
        await self._ended(batch, run)
        return run is not None and run.status not in ENDED

    async def _woken(self) -> bool:
        await self._desk.wake()
        return True

    async def _pruned(self) -> bool:
        await asyncio.to_thread(self.shelf.sweep)
        if self._keep is not None:
            before = time.time() - self._keep
            for batch in await asyncio.to_thread(lambda: list(self.shelf.all())):
                if batch.over_since is not None and batch.over_since < before:
                    await asyncio.to_thread(self.shelf.delete, batch.id)
            await asyncio.to_thread(self._cabinet.prune, before)
        return True


def describe(batch: BatchRecord, run: StoredRun | None, counts: Counts) -> dict[str, Any]:
    """A batch as clients read it; `run` and `counts` say how far one is that has not ended."""
    end = batch.ended
    status, counts = (end.status, end.counts) if end is not None else (_status(batch, run, counts), counts)
    started = end.started_at if end is not None else run and _second(run.started_at)
    ended = end.finished_at if end is not None else run and _second(run.finished_at)
    files = end.files if end is not None else {}
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": _errors(batch, run),
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": status,
        "output_file_id": files.get("output"),
        "error_file_id": files.get("error"),
        "created_at": batch.created_at,
        "in_progress_at": started,
        "expires_at": batch.expires_at,
        "finalizing_at": ended,
        "completed_at": ended if status == "completed" else None,
        "failed_at": (batch.created_at if batch.errors else ended) if status == "failed" else None,
        "expired_at": ended if status == "expired" else None,
        "cancelling_at": batch.cancelling_at,
        "cancelled_at": ended if status == "cancelled" else None,
        "request_counts": {"total": batch.total, "completed": counts.completed, "failed": counts.failed},
        "metadata": batch.metadata,
    }


def _errors(batch: BatchRecord, run: StoredRun | None) -> dict[str, Any] | None:
    errors = [msgspec.structs.asdict(error) for error in batch.errors]
    problem = batch.ended.problem if batch.ended is not None else run.error if run is not None else None
    if problem:
        errors = [{"code": "run_failed", "message": problem, "line": None, "param": None}]
    return {"object": "list", "data": errors} if errors else None


def _status(batch: BatchRecord, run: StoredRun | None, counts: Counts) -> str:
    if batch.errors:
        return "failed"
    if run is not None and run.status in _UNDONE:
        return run.status
    if batch.cancelling_at is not None:
        return "cancelling"
    if run is None or run.status not in ("running", "succeeded", "partial"):
        return "validating"
    return "finalizing" if counts.completed + counts.failed >= batch.total else "in_progress"


def _lost(problem: str) -> Ending:
    return Ending(status="failed", started_at=None, finished_at=int(time.time()), problem=problem)


def _second(ms: int | None) -> int | None:
    return None if ms is None else ms // 1000


def no_file(id: str) -> ApiError:
    """That an id names no file which may be the input of a batch."""
    return ApiError(400, f"no file has the id {id!r}", code="file_not_found", param="input_file_id")


def checked(path: Path, endpoint: str) -> tuple[int, tuple[LineError, ...]]:
    """Count the lines of an input file and list what is wrong with them."""
    errors: list[LineError] = []
    seen: set[str] = set()
    total = 0
    with open(path, "rb") as file:
        for line, data in enumerate(file, 1):
            if not data.strip():
                continue
            total += 1
            if (error := _wrong(data, line, endpoint, seen)) is not None:
                errors.append(error)
            if len(errors) >= MOST_ERRORS:
                break
    if not total:
        errors.append(LineError(code="empty_file", message="the input file has no lines"))
    if total > MOST_LINES:
        message = f"the input file has {total} lines, more than {MOST_LINES}"
        errors.append(LineError(code="too_many_tasks", message=message))
    return total, tuple(errors)


def _wrong(data: bytes, line: int, endpoint: str, seen: set[str]) -> LineError | None:
    def error(code: str, message: str, param: str | None = None) -> LineError:
        return LineError(code=code, message=message, line=line, param=param)

    try:
        found = msgspec.json.decode(data, type=InputLine)
        data.decode()
        body = msgspec.json.decode(found.body, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        return error("invalid_json_line", str(problem).replace("`", "'"))
    if found.custom_id in seen:
        return error("duplicate_custom_id", f"custom_id {found.custom_id!r} is there twice", "custom_id")
    seen.add(found.custom_id)
    if found.method != "POST":
        return error("invalid_method", f"method {found.method!r} is not POST", "method")
    if found.url != endpoint:
        return error("mismatched_endpoint", f"url {found.url!r} is not the batch's endpoint {endpoint!r}", "url")
    if body.get("stream", b"false") not in (b"false", b"null"):
        return error("invalid_request", "an answer in a batch cannot be streamed", "body.stream")
    return None


def _window(text: str) -> int:
    try:
        window = seconds(text)
    except BadValue as error:
        raise ApiError(400, f"completion_window: {error.problem}", param="completion_window") from None
    if not 1 <= window <= 7 * 86_400:
        raise ApiError(400, "completion_window is from 1s to 7d, such as 24h", param="completion_window")
    return int(window)
