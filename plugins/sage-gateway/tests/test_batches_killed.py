"""A batch outlives its gateway and its workers, however often they are killed: each line is written once."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest
from openai import OpenAI
from sage_gateway.testing_project import ProjectFolder, Served

LINES = 160
CONFIG = """
[workers]
lease = 2.0
[queues.batches]
idle = 2.0
max = 2
[models.echo]
backend = "fake"
sequences = 4
ttft = 0.1
journal = "{journal}"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProjectFolder:
    folder = ProjectFolder(tmp_path, monkeypatch)
    (tmp_path / "sage.toml").write_text(CONFIG.format(journal=tmp_path / "journal"))
    return folder


def client_of(served: Served) -> OpenAI:
    return OpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=5, timeout=30)


def answered(project: ProjectFolder) -> int:
    journal = project.folder / "journal"
    return journal.read_text().count("echo end") if journal.exists() else 0


def wait_for(project: ProjectFolder, many: int) -> None:
    until = time.monotonic() + 45
    while answered(project) < many:
        assert time.monotonic() < until, (answered(project), (project.folder / "serve.log").read_text()[-3000:])
        time.sleep(0.05)


@pytest.mark.timeout(150)
def test_every_line_is_written_once_whoever_is_killed(project: ProjectFolder) -> None:
    lines = [
        json.dumps(
            {
                "custom_id": f"c{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "echo", "messages": [{"role": "user", "content": f"line {number}"}]},
            }
        )
        for number in range(LINES)
    ]
    with project.serve() as served, client_of(served) as client:
        file = client.files.create(file=("lines.jsonl", "\n".join(lines).encode()), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        wait_for(project, 20)
        # The workers and their supervisor, while the gateway lives.
        assert project.kill(but=served.process.pid) >= 2
        wait_for(project, answered(project) + 30)
        assert client.batches.retrieve(batch.id).status == "in_progress"
        # The gateway alone: its workers wait for the next one.
        served.process.kill()
    with project.serve() as served, client_of(served) as client:
        wait_for(project, answered(project) + 20)
        assert client.batches.retrieve(batch.id).status == "in_progress"
        # Everything at once.
        assert project.kill() >= 3
    with project.serve() as served, client_of(served) as client:
        until = time.monotonic() + 60
        while (done := client.batches.retrieve(batch.id)).status != "completed":
            assert done.status in ("validating", "in_progress", "finalizing")
            assert time.monotonic() < until, done
            time.sleep(0.2)
        assert done.output_file_id is not None
        assert done.error_file_id is None
        found = [json.loads(line) for line in client.files.content(done.output_file_id).text.splitlines()]
    project.kill()
    assert Counter(each["custom_id"] for each in found) == {f"c{number}": 1 for number in range(LINES)}
    for each in found:
        text = each["response"]["body"]["choices"][0]["message"]["content"]
        assert text == f"line {each['custom_id'][1:]}"
    # Work was lost and done again, or nothing would have been shown.
    assert answered(project) > LINES
