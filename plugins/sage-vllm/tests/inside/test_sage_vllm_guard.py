"""The server asks for the key on every path."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sage_vllm.inside.sage_vllm_guard import KEY, Guard


async def served(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


def status(path: str, key: bytes | None, kind: str = "http") -> int:
    """What a request is answered with."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [] if key is None else [(b"authorization", key)]
    asyncio.run(Guard(served)({"type": kind, "path": path, "headers": headers}, None, send))
    first: int = sent[0]["status"]
    return first


@pytest.mark.parametrize("path", ["/health", "/metrics", "/sleep", "/v1/models", "/collective_rpc"])
def test_no_path_is_open_without_the_key(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "right")
    assert status(path, b"Bearer right") == 200
    for wrong in (None, b"", b"right", b"Bearer wrong", b"Bearer right "):
        assert status(path, wrong) == 401
    assert status(path, None, "websocket") == 401
    assert status(path, None, "lifespan") == 200


def test_without_a_key_nobody_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    assert status("/health", b"Bearer ") == 401
