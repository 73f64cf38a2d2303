"""A key, and what an upstream is asked with, are written nowhere: not in files, logs, answers or the store."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from openai import APIError, OpenAI
from sage_gateway.keys import KeyFile, keys_path
from sage_gateway.testing_project import ProjectFolder

from sage_core import find_paths

CONFIG = """
[queues.batches]
idle = 1
max = 1
[models.echo]
backend = "fake"
poison = "poison"
[models.far]
backend = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key = "${secret.FAR}"
check = false
"""
#: Of the upstream, and one that no project knows.
FAR, STRANGE = "sk-far-0123456789abcdef", "sk-sage-strange-0123456789abcdef"


@pytest.mark.timeout(60)
def test_no_key_is_written_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sage_openai", reason="the backend that speaks to upstreams")
    monkeypatch.setenv("FAR", FAR)
    monkeypatch.setenv("SAGE_LOG", "json")
    project = ProjectFolder(tmp_path, monkeypatch)
    (tmp_path / "sage.toml").write_text(CONFIG)
    kept = keys_path(find_paths(tmp_path))
    text, _ = KeyFile(kept).add(tenant="t", admin=True, budget=1.0)
    told: list[str] = []
    with project.serve("--record", str(tmp_path / "recorded.jsonl")) as served:
        base = f"{served.url}/v1"
        with OpenAI(base_url=base, api_key=text, max_retries=0, timeout=20) as client:
            for model, content in (("echo", "hello"), ("echo", "poison"), ("far", "hello"), ("none", "hello")):
                try:
                    messages: Any = [{"role": "user", "content": content}]
                    told.append(client.chat.completions.create(model=model, messages=messages).to_json())
                except APIError as error:
                    told.append(f"{error} {error.body}")
            body = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
            line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file = client.files.create(file=("a", json.dumps(line).encode()), purpose="batch")
            batch = client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            until = time.monotonic() + 40
            while client.batches.retrieve(batch.id).status != "completed":
                assert time.monotonic() < until
                time.sleep(0.1)
            told += [client.get(f"{served.url}{path}", cast_to=str) for path in ("/sage/v1/engines", "/metrics")]
        with OpenAI(base_url=base, api_key=STRANGE, max_retries=0) as stranger, pytest.raises(APIError) as refused:
            stranger.models.list()
        told.append(f"{refused.value} {refused.value.body}")
        beacon = json.loads((kept.with_name("gateway.json")).read_bytes())["secret"]
    # It ends with its gateway.
    assert not (kept.with_name("gateway.json")).exists()
    secrets = [text, text.removeprefix("sk-sage-"), FAR, STRANGE, beacon]
    assert len(told) == 7
    for answer in told:
        assert not [secret for secret in secrets if secret in answer], answer
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"recorded.jsonl", "serve.log", "keys.json", "spending.json", "batch.json"} <= {
        path.name for path in written
    }
    assert any(".db" in path.name for path in written)
    for path in written:
        data = path.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in data], path
    project.kill()
