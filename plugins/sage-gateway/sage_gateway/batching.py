"""Batches: each is a durable run of ordinary jobs, which outlives the gateway and its workers."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec

from sage_core import BadValue, Caller, Paths, SageError, UsageError
from sage_core.serving import ENDED, Desk, StoredRun, log, new_run_id, seconds
from sage_gateway.batch_operators import InputLine
from sage_gateway.batch_records import BatchRecord, Counts, LineError, Shelf
from sage_gateway.beacon import beacon_path
from sage_gateway.cabinet import Cabinet
from sage_gateway.errors import ApiError

#: Where a batch's lines may go.
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank", "/v1/responses")
#: Lines of a batch, and errors that are listed of one.
MOST_LINES, MOST_ERRORS = 50_000, 100
#: Lines of one job: what a killed worker has to ask for again at most.
PART = 32
#: Where the jobs wait, and their priority among others.
QUEUE, PRIORITY = "batches", -10
#: Seconds between two looks at whether a batch needs anything.
TEND = 5.0
_METADATA = 16

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
    """The batches of a project, and what looks after them."""

    def __init__(self, desk: Desk, cabinet: Cabinet, paths: Paths) -> None:
        self._desk = desk
        self._cabinet = cabinet
        self._paths = paths
        self.shelf = Shelf(paths.project / "batches")
        #: Ids of those that are over and have their files.
        self._over: set[str] = set()

    async def create(self, asked: NewBatch, *, tenant: str, key: str) -> BatchRecord:
        """Check the lines and queue the run; wrong lines make a batch that has failed."""
        now, run = int(time.time()), new_run_id()
        id = f"batch_{run}"
        source = self.shelf.input(id)
        total, errors = await asyncio.to_thread(self._take, self._cabinet.data(asked.input_file_id), source, asked)
        batch = BatchRecord(
            id=id,
            run=run,
            tenant=tenant,
            key=key,
            endpoint=asked.endpoint,
            input_file_id=asked.input_file_id,
            completion_window=asked.completion_window,
            created_at=now,
            expires_at=now + _window(asked.completion_window),
            total=total,
            metadata=asked.metadata,
            errors=errors,
        )
        # Before its run: a gateway that dies in between starts it when it is there again.
        await asyncio.to_thread(self.shelf.write, batch)
        if not errors:
            await self._submit(batch)
        return batch

    def _take(self, file: Path, source: Path, asked: NewBatch) -> tuple[int, tuple[LineError, ...]]:
        source.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, source)
        except OSError:
            shutil.copyfile(file, source)
        return checked(source, asked.endpoint)

    async def _submit(self, batch: BatchRecord) -> None:
        params = {
            "input": str(self.shelf.input(batch.id)),
            "endpoint": batch.endpoint,
            "record": str(self.shelf.record(batch.id)),
            "beacon": str(beacon_path(self._paths)),
        }
        caller = Caller(tenant=batch.tenant, service_class="batch")
        await self._desk.submit(WORKFLOW, params, caller, queue=QUEUE, priority=PRIORITY, run_id=batch.run)

    async def cancel(self, batch: BatchRecord) -> BatchRecord:
        """Send no more of its lines; what was answered is kept."""
        run = await self._run(batch)
        if batch.errors or batch.cancelling_at is not None or (run is not None and run.status in ENDED):
            return batch
        batch = msgspec.structs.replace(batch, cancelling_at=int(time.time()))
        await asyncio.to_thread(self.shelf.write, batch)
        return batch

    async def _run(self, batch: BatchRecord) -> StoredRun | None:
        try:
            return await self._desk.run(batch.run)
        except UsageError:
            return None

    # ------------------------------------------------------------ as clients read it

    async def shown(self, batch: BatchRecord) -> dict[str, Any]:
        """A batch as it stands."""
        run = None if batch.errors else await self._run(batch)
        counts, files = Counts(), dict[str, str]()
        status = _status(batch, run, counts)
        if run is not None and run.status in ("succeeded", "partial"):
            counts, files = await asyncio.to_thread(self._collect, batch, run)
            status = _status(batch, run, counts)
        elif run is not None and run.status == "running":
            view = await self._desk.view(run)
            done = view.steps["ask"].rows_out if "ask" in view.steps else 0
            counts = Counts(completed=done)
            if done == batch.total and status == "in_progress":
                status = "finalizing"
        ended = None if run is None or run.finished_at is None else run.finished_at // 1000
        started = None if run is None or run.started_at is None else run.started_at // 1000
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": batch.endpoint,
            "errors": self._errors(batch, run),
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

    def _errors(self, batch: BatchRecord, run: StoredRun | None) -> dict[str, Any] | None:
        errors = [msgspec.structs.asdict(error) for error in batch.errors]
        if run is not None and run.status == "failed":
            errors = [{"code": "run_failed", "message": run.error, "line": None, "param": None}]
        return {"object": "list", "data": errors} if errors else None

    def _collect(self, batch: BatchRecord, run: StoredRun) -> tuple[Counts, dict[str, str]]:
        """Make files of what a run has left; a second time finds them."""
        outputs = msgspec.msgpack.decode(run.outputs) if run.outputs else {}
        folder = Path(outputs["files"]["path"])
        kept = self.shelf.folder / batch.id / "counts.json"
        counted = msgspec.json.decode((kept if kept.exists() else folder / "counts.json").read_bytes(), type=Counts)
        found = {}
        for name, many in (("output", counted.completed), ("error", counted.failed)):
            if not many:
                continue
            id = f"file-{batch.run}-{name}"
            if batch.id not in self._over:
                source, filename = folder / f"{name}.jsonl", f"{batch.id}_{name}.jsonl"
                self._cabinet.adopt(source, id, filename=filename, purpose="batch_output", tenant=batch.tenant)
            found[name] = id
        if batch.id not in self._over and not kept.exists():
            # Runs and what they leave are pruned one day; a batch is not.
            shutil.copyfile(folder / "counts.json", kept)
        self._over.add(batch.id)
        return counted, found

    # ------------------------------------------------------------ looking after them

    async def tend(self) -> None:
        """Until cancelled: start runs that a killed gateway left unstarted, and workers where killed ones left work."""
        while True:
            try:
                await self._tend()
            except (SageError, OSError) as error:
                log("batches_not_tended", level=logging.WARNING, error=error)
            await asyncio.sleep(TEND)

    async def _tend(self) -> None:
        waiting = False
        for batch in await asyncio.to_thread(lambda: list(self.shelf.all())):
            if batch.errors or batch.id in self._over:
                continue
            run = await self._run(batch)
            if run is None:
                await self._submit(batch)
            elif run.status in ("succeeded", "partial"):
                await asyncio.to_thread(self._collect, batch, run)
            elif run.status in ENDED:
                self._over.add(batch.id)
            waiting |= run is None or run.status not in ENDED
        if waiting:
            await self._desk.wake()


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


def _status(batch: BatchRecord, run: StoredRun | None, counts: Counts) -> str:
    if batch.errors:
        return "failed"
    if run is not None and run.status in ("failed", "cancelled"):
        return run.status
    if run is not None and run.status in ENDED:
        if counts.expired:
            return "expired"
        return "cancelled" if batch.cancelling_at is not None else "completed"
    if batch.cancelling_at is not None:
        return "cancelling"
    return "in_progress" if run is not None and run.status == "running" else "validating"


def _window(text: str) -> int:
    try:
        window = seconds(text)
    except BadValue as error:
        raise ApiError(400, f"completion_window: {error.problem}", param="completion_window") from None
    if not 1 <= window <= 7 * 86_400:
        raise ApiError(400, "completion_window is from 1s to 7d, such as 24h", param="completion_window")
    return int(window)
