"""``/metrics`` as a scraper meets it: without a key, whatever keys there are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
from sage_gateway.keys import KeyFile
from sage_gateway.testing import Running


def test_anyone_who_reaches_the_port_may_scrape(tmp_path: Path, serve: Callable[..., Running]) -> None:
    text, _ = KeyFile(tmp_path / "project" / "keys.json").add(tenant="search")
    running = serve()
    body = {"model": "echo", "messages": [{"role": "user", "content": "one two"}]}
    httpx.post(f"{running.url}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {text}"})
    answer = httpx.get(f"{running.url}/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'sage_tenant_tokens_total{direction="input",tenant="search"} 2.0' in answer.text
    assert text not in answer.text
    assert httpx.post(f"{running.url}/metrics").status_code == 405
