"""Everything that docs/gateway.md shows is run: its commands, its Python, its settings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sage_gateway.settings import GatewaySettings, read_settings
from sage_gateway.testing import Running

from sage_core.serving import parse_config

PAGE = Path(__file__).parents[3] / "docs" / "gateway.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the plugin is tested without the documentation")
MODELS = {
    "chat": {"backend": "fake", "engines": [{"source": "a"}, {"source": "b"}]},
    "minilm": {"backend": "fake"},
}
SAGE = "import sys; from sage_core.cli.main import main; main()"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", blocks("bash") if PAGE.is_file() else [], ids=lambda block: block.split("\n")[0][:60])
def test_commands(serve: Callable[..., Running], tmp_path: Path, block: str) -> None:
    running = serve(MODELS)
    sage = tmp_path / "sage"
    sage.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{SAGE}" "$@"\n')
    sage.chmod(0o755)
    (tmp_path / "sage.toml").write_text(f'[gateway]\nurl = "{running.url}"\n')
    script = block.replace("http://localhost:8700", running.url).replace("localhost:8700", running.url)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SAGE_PLUGINS": "gateway"}
    done = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_python(serve: Callable[..., Running], capsys: pytest.CaptureFixture[str]) -> None:
    running = serve(MODELS)
    (block,) = blocks("python")
    exec(block.replace("http://localhost:8700", running.url), {})
    assert capsys.readouterr().out == "hello16\n"


def test_settings_are_the_defaults() -> None:
    first, second = blocks("toml")
    assert set(parse_config(first, "docs").models) == {"chat", "minilm"}
    shown = read_settings(parse_config(second, "docs").gateway)
    assert shown == GatewaySettings()
