"""Files and batches, as the official client uses them: real gateway, real worker processes."""

from __future__ import annotations

import importlib
import json
import shutil
import time
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest
import sage_gateway
import sage_gateway.testing as gateways
from openai import BadRequestError, NotFoundError, OpenAI
from openai.types import Batch
from sage_gateway.keys import KeyFile
from sage_gateway.testing import Running
from sage_gateway.testing_project import ProjectFolder

import sage_core.testing.engines as fake
from sage_core.serving import default_host

QUEUES = {"queues": {"batches": {"idle": 1, "max": 1}}}
CHATS: Any = "/v1/chat/completions"


@pytest.fixture
def start(project: ProjectFolder) -> Callable[..., Any]:
    def serving(*, gateway: dict[str, Any] | None = None, **options: object) -> Any:
        host = default_host({"fake": fake, "gateway": sage_gateway, "samples": importlib.import_module("sage_samples")})
        tables = {**QUEUES, "gateway": gateway or {}}
        return gateways.serving(project.folder, host, {"echo": {"backend": "fake", **options}}, tables)

    return serving


def client_of(running: Running, key: str = "any") -> OpenAI:
    return OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0, timeout=30)


def line(number: int, *, model: str = "echo", url: str = "/v1/chat/completions", **body: object) -> str:
    message = {"role": "user", "content": f"line {number}"}
    given = {"model": model, "messages": [message], "max_tokens": 8, **body}
    return json.dumps({"custom_id": f"c{number}", "method": "POST", "url": url, "body": given})


def upload(client: OpenAI, lines: list[str]) -> str:
    data = "\n".join(lines).encode()
    return client.files.create(file=("lines.jsonl", data), purpose="batch").id


def ended(client: OpenAI, batch: Batch, *, seconds: float = 40) -> Batch:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = client.batches.retrieve(batch.id)
        if found.status in ("completed", "failed", "cancelled", "expired"):
            return found
        time.sleep(0.1)
    raise AssertionError(found)


def content(client: OpenAI, id: str | None) -> list[dict[str, Any]]:
    assert id is not None
    return [json.loads(each) for each in client.files.content(id).text.splitlines()]


def test_a_batch_answers_every_line_once(start: Callable[..., Any]) -> None:
    with start() as running, client_of(running) as client:
        lines = [line(number) for number in range(70)]
        lines[3] = line(3, model="unknown")
        file = upload(client, lines)
        batch = client.batches.create(
            input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h", metadata={"for": "test"}
        )
        assert (batch.status, batch.metadata, batch.request_counts and batch.request_counts.total) == (
            "validating",
            {"for": "test"},
            70,
        )
        done = ended(client, batch)
        assert done.status == "completed"
        assert done.request_counts is not None
        assert (done.request_counts.completed, done.request_counts.failed) == (69, 1)
        found = content(client, done.output_file_id)
        assert [each["custom_id"] for each in found] == [f"c{number}" for number in range(70) if number != 3]
        first = found[0]["response"]
        assert (first["status_code"], first["body"]["choices"][0]["message"]["content"]) == (200, "line 0")
        (failed,) = content(client, done.error_file_id)
        assert (failed["custom_id"], failed["response"]["status_code"]) == ("c3", 404)
        assert failed["response"]["body"]["error"]["code"] == "model_not_found"
        assert [each.id for each in client.batches.list()] == [batch.id]
        decided = running.call(lambda: running.gateway.decisions[first["request_id"]])
        assert decided[0].service_class == "batch"


def test_wrong_lines_make_a_batch_that_failed(start: Callable[..., Any]) -> None:
    with start() as running, client_of(running) as client:
        wrong = [line(0), line(0), "{", line(1, url="/v1/embeddings"), line(2, stream=True), '{"custom_id": 3}']
        batch = client.batches.create(
            input_file_id=upload(client, wrong), endpoint="/v1/chat/completions", completion_window="24h"
        )
        assert batch.status == "failed"
        assert batch.errors is not None
        assert batch.errors.data is not None
        assert [(error.line, error.code) for error in batch.errors.data] == [
            (2, "duplicate_custom_id"),
            (3, "invalid_json_line"),
            (4, "mismatched_endpoint"),
            (5, "invalid_request"),
            (6, "invalid_json_line"),
        ]
        for fields, said in (
            ({"input_file_id": "file-none"}, "no file has the id"),
            ({"endpoint": "/v1/nothing"}, "is none of"),
            ({"completion_window": "soon"}, "is not a duration"),
        ):
            asked: Any = {
                "input_file_id": batch.input_file_id,
                "endpoint": "/v1/embeddings",
                "completion_window": "24h",
                **fields,
            }
            with pytest.raises(BadRequestError, match=said):
                client.batches.create(**asked)


@pytest.mark.parametrize(
    ("window", "status", "code"), [("24h", "cancelled", "batch_cancelled"), ("2s", "expired", "batch_expired")]
)
def test_a_batch_that_is_stopped_keeps_what_was_answered(
    start: Callable[..., Any], window: Any, status: str, code: str
) -> None:
    with start(sequences=1, ttft=0.1) as running, client_of(running) as client:
        file = upload(client, [line(number) for number in range(100)])
        batch = client.batches.create(input_file_id=file, endpoint="/v1/chat/completions", completion_window=window)
        if status == "cancelled":
            until = time.monotonic() + 30
            while not running.call(lambda: len(running.gateway.decisions)) and time.monotonic() < until:
                time.sleep(0.05)
            assert client.batches.cancel(batch.id).status == "cancelling"
        done = ended(client, batch)
        assert done.status == status
        answered = content(client, done.output_file_id) if done.output_file_id else []
        rest = content(client, done.error_file_id)
        assert {each["error"]["code"] for each in rest} == {code}
        assert sorted(int(each["custom_id"][1:]) for each in answered + rest) == list(range(100))
        assert running.settled()


def test_a_tenant_sees_its_own_and_pays_from_its_own_budget(project: ProjectFolder, start: Callable[..., Any]) -> None:
    keys = KeyFile(project.folder / "project" / "keys.json")
    mine, _ = keys.add(tenant="mine", requests_per_minute=9)
    poor, _ = keys.add(tenant="poor", budget=0.000_020)
    with start() as running, client_of(running, mine) as client, client_of(running, poor) as other:
        file = upload(client, [line(number) for number in range(20)])
        batch = client.batches.create(input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h")
        for call in (other.batches.retrieve, other.batches.cancel):
            with pytest.raises(NotFoundError):
                call(batch.id)
        with pytest.raises(NotFoundError):
            other.files.content(file)
        with pytest.raises(BadRequestError, match="no file has the id"):
            other.batches.create(input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h")
        assert list(other.batches.list()) == []
        # Jobs wait for the engines as batch work does; a client's limit by the minute is not theirs.
        assert (done := ended(client, batch)).request_counts
        assert done.request_counts.completed == 20
        own = upload(other, [line(number) for number in range(20)])
        paid = ended(
            other, other.batches.create(input_file_id=own, endpoint="/v1/chat/completions", completion_window="24h")
        )
        codes = {each["response"]["body"]["error"]["code"] for each in content(other, paid.error_file_id)}
        assert codes == {"insufficient_quota"}


def test_the_answered_lines_are_counted_one_by_one(start: Callable[..., Any]) -> None:
    # Two lines hang, and whatever is answered beside them is fewer than the lines of one job.
    with start(hang="hang", sequences=20) as running, client_of(running) as client:
        lines = [line(number, model="none" if number == 7 else "echo") for number in range(12)]
        for number in (3, 9):
            lines[number] = line(number, messages=[{"role": "user", "content": "hang"}])
        batch = client.batches.create(input_file_id=upload(client, lines), endpoint=CHATS, completion_window="24h")
        until = time.monotonic() + 30
        while (found := client.batches.retrieve(batch.id)).request_counts is None or (
            found.request_counts.completed + found.request_counts.failed < 10
        ):
            assert time.monotonic() < until, found
            time.sleep(0.05)
        assert (found.request_counts.completed, found.request_counts.failed) == (9, 1)
        assert found.status == "in_progress"
        client.batches.cancel(batch.id)
        done = ended(client, batch)
        assert done.request_counts is not None
        assert (done.request_counts.completed, done.request_counts.failed) == (9, 3)


def test_a_batch_that_is_over_stays_as_it_is_without_its_run_and_files(
    project: ProjectFolder, start: Callable[..., Any]
) -> None:
    with start() as running, client_of(running) as client:
        file = upload(client, [line(0), line(1, model="none")])
        made = client.batches.create(input_file_id=file, endpoint=CHATS, completion_window="24h")
        done = ended(client, made)
        assert done.output_file_id is not None
        assert client.files.delete(done.output_file_id).deleted
        assert len(running.gateway.decisions) == 1
    project.kill()
    # The run, its jobs and its results are pruned one day.
    for kept in (project.folder / "project").iterdir():
        if kept.name not in ("batches", "files"):
            shutil.rmtree(kept) if kept.is_dir() else kept.unlink()
    with start() as running, client_of(running) as client:
        batches = running.gateway.batches
        kept_batch = batches.shelf.read(made.id)
        assert kept_batch is not None
        assert running.wait(batches._tended(kept_batch)) is False
        assert client.batches.retrieve(made.id) == done
        with pytest.raises(NotFoundError):
            client.files.content(done.output_file_id)
        assert len(content(client, done.error_file_id)) == 1
        assert not running.gateway.decisions


def test_a_batch_whose_run_is_gone_before_its_end_has_failed(project: ProjectFolder, start: Callable[..., Any]) -> None:
    with start(hang="line") as running, client_of(running) as client:
        made = client.batches.create(input_file_id=upload(client, [line(0)]), endpoint=CHATS, completion_window="24h")
        running.busy("echo")
        project.kill()
    for database in (project.folder / "project").glob("*.db*"):
        database.unlink()
    with start() as running, client_of(running) as client:
        done = client.batches.retrieve(made.id)
        assert done.status == "failed"
        assert done.errors is not None
        assert done.errors.data is not None
        assert [error.message for error in done.errors.data] == ["its run was removed before it had ended"]


def test_files_and_batches_are_kept_as_long_as_is_said(start: Callable[..., Any]) -> None:
    with start(gateway={"files": {"keep": "1s"}}) as running, client_of(running) as client:
        file = upload(client, [line(0)])
        batch = client.batches.create(input_file_id=file, endpoint=CHATS, completion_window="24h")
        assert ended(client, batch).status == "completed"
        batches = running.gateway.batches
        until = time.monotonic() + 20
        while client.batches.list().data or client.files.list().data:
            assert time.monotonic() < until
            running.wait(batches._pruned())
            time.sleep(0.1)
        with pytest.raises(NotFoundError):
            client.batches.retrieve(batch.id)


def test_a_line_for_a_model_that_its_key_may_not_use_fails_alone(
    project: ProjectFolder, start: Callable[..., Any]
) -> None:
    keys = KeyFile(project.folder / "project" / "keys.json")
    text, _ = keys.add(tenant="t", models=("e*",))
    with start() as running, client_of(running, text) as client:
        other = msgspec.structs.replace(running.gateway.models["echo"], name="other")
        running.call(lambda: running.gateway.serve(other))
        lines = [line(0), line(1, model="other"), line(2, model="workflow/x")]
        batch = client.batches.create(input_file_id=upload(client, lines), endpoint=CHATS, completion_window="24h")
        done = ended(client, batch)
        assert [each["custom_id"] for each in content(client, done.output_file_id)] == ["c0"]
        failed = content(client, done.error_file_id)
        assert [each["response"]["body"]["error"]["code"] for each in failed] == ["model_not_found"] * 2


def test_an_id_of_no_batch_is_not_found(start: Callable[..., Any]) -> None:
    with start() as running:
        for wrong in ("batch_" + "%F0%9F%98%80" * 90, "batch_..%2F..", "batch_1%00", "x", "batch_" + "a" * 99):
            for method, path in (("GET", ""), ("POST", "/cancel")):
                answer = httpx.request(method, f"{running.url}/v1/batches/{wrong}{path}")
                assert answer.status_code == 404, answer.text
                assert answer.json()["error"]["code"] in ("batch_not_found", "unknown_url")


def test_a_window_that_is_none_leaves_nothing(project: ProjectFolder, start: Callable[..., Any]) -> None:
    with start() as running, client_of(running) as client:
        file = upload(client, [line(0)])
        window: Any = "8d"
        with pytest.raises(BadRequestError, match="completion_window is from 1s to 7d"):
            client.batches.create(input_file_id=file, endpoint=CHATS, completion_window=window)
        # The file goes while its batch is made.
        (project.folder / "project" / "files" / file / "data").unlink()
        with pytest.raises(BadRequestError, match="no file has the id"):
            client.batches.create(input_file_id=file, endpoint=CHATS, completion_window="24h")
    assert not list((project.folder / "project").glob("batches/*"))
