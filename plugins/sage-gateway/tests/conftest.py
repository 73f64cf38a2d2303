from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sage_gateway.testing as plain
from openai import OpenAI
from sage_gateway.testing import Running, serving
from sage_gateway.testing_project import ProjectFolder

import sage_core.testing.engines as fake
from sage_core.serving import default_host

MODELS = {"echo": {"backend": "fake", "sequences": 8}}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start gateways: ``serve(models, **tables of sage.toml)``."""
    with ExitStack() as stack:

        def start(models: dict[str, Any] | None = None, **tables: Any) -> Running:
            host = default_host({"fake": fake, "plain": plain})
            return stack.enter_context(serving(tmp_path, host, MODELS if models is None else models, tables))

        yield start


@pytest.fixture
def running(serve: Callable[..., Running]) -> Running:
    """A gateway with one fake model, ``echo``."""
    return serve()


@pytest.fixture
def client(running: Running) -> Iterator[OpenAI]:
    """The official client, without retries: a test wants to see the first answer."""
    with OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProjectFolder:
    """A folder for workflows, workers and a gateway in a process of its own."""
    return ProjectFolder(tmp_path, monkeypatch)
