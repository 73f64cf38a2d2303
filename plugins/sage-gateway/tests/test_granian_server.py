"""Granian as the server; test_exchange.py has clients that leave or misbehave, test_process.py the signals."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
from openai import OpenAI
from sage_gateway.testing import Running

SERVE = """
import sys
sys.modules["granian"] = None
import sage_gateway
from sage_core.builtins import default_host
from sage_core.cli.app import App
from sage_core.cli.main import run
sys.exit(run(sys.argv[1:], App(default_host({"gateway": sage_gateway}))))
"""


def test_it_serves_the_official_client(serve: Callable[..., Running]) -> None:
    running = serve(gateway={"server": "granian"})
    assert httpx.get(f"{running.url}/health").headers["server"] == "granian"
    with OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0, timeout=20) as client:
        answer = client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "one two"}])
        assert answer.choices[0].message.content == "one two"
        assert len(client.embeddings.create(model="echo", input=["a", "b"]).data) == 2


def test_a_piece_is_passed_on_before_the_next_is_there(serve: Callable[..., Running]) -> None:
    running = serve({"echo": {"backend": "fake", "tokens_per_second": 0.001}}, gateway={"server": "granian"})
    body = {"model": "echo", "messages": [{"role": "user", "content": "one two"}], "stream": True}
    with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body, timeout=20) as answer:
        assert '"role":"assistant"' in next(answer.iter_lines())
        assert running.engine_now("echo").running == 1
    assert running.settled()


def test_without_it_the_way_out_is_told(tmp_path: Path) -> None:
    (tmp_path / "sage.toml").write_text('[gateway]\nserver = "granian"\n')
    done = subprocess.run(
        [sys.executable, "-c", SERVE, "serve", "--port", "0"],
        cwd=tmp_path,
        env={"SAGE_HOME": str(tmp_path / "home"), "SAGE_PLUGINS": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "[gateway] server: granian cannot be imported" in done.stderr
    assert "pip install 'sage-gateway[granian]'; or leave server out, for hypercorn" in done.stderr
