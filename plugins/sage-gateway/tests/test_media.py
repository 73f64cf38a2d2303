"""What a message points at goes to no engine; what it holds does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sage_gateway.asked import Message
from sage_gateway.errors import ApiError
from sage_gateway.media import refuse_remote
from sage_gateway.testing import Running

PIXEL = "data:image/png;base64,iVBORw0KGgo="
TEXT = {"type": "text", "text": "see http://127.0.0.1/ and file:///etc/passwd"}


def message(*parts: dict[str, Any]) -> list[Message]:
    return [Message(role="system", content="http://a/"), Message(role="user", content=[TEXT, *parts])]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest/meta-data"}},
        {"type": "image_url", "image_url": "https://example.org/a.png"},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "image_url", "image_url": {"url": " \\tHTTP://a"}},
        {"type": "image_url", "image_url": {"url": "//a/b.png"}},
        {"type": "image_url", "image_url": {"url": "a.png"}},
        {"image_url": "http://a"},
        {"type": "video_url", "video_url": {"url": "https://a"}},
        {"type": "audio_url", "audio_url": {"url": "ftp://a"}},
        {"type": "file", "file": {"file_url": "https://a"}},
        {"type": "image", "image": "https://a"},
        {"type": "images", "images": [PIXEL, "https://a"]},
        {"type": "images", "images": [{"uri": "s3://a"}]},
    ],
)
def test_a_part_that_points_somewhere_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match=r"must be a data: URL") as refused:
        refuse_remote(message(part))
    assert (refused.value.status, refused.value.code) == (400, "url_not_allowed")
    assert refused.value.param == "messages[1].content"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": " DATA:image/png;base64,AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "//NExAAAAAANIAAAAAAA", "format": "mp3"}},
        {"type": "file", "file": {"file_data": "aGVsbG8=", "filename": "a.pdf"}},
        {"type": "image_embeds", "image_embeds": "AAAA", "uuid": "1"},
    ],
)
def test_a_part_that_holds_its_content_is_not(part: dict[str, Any]) -> None:
    refuse_remote(message(part))


def test_no_engine_is_asked_unless_the_gateway_allows_it(serve: Callable[..., Running]) -> None:
    part = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/a.png"}}
    asked = {"model": "echo", "messages": [{"role": "user", "content": [TEXT, part]}]}
    running = serve()
    answer = httpx.post(f"{running.url}/v1/chat/completions", json=asked)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "url_not_allowed")
    assert not running.gateway.decisions
    said = {"model": "echo", "input": [{"type": "message", "role": "user", "content": []}]}
    for kind in ("input_image", "input_file"):
        said["input"][0]["content"] = [{"type": kind, "image_url": "http://a", "file_url": "http://a"}]  # type: ignore[index]
        answer = httpx.post(f"{running.url}/v1/responses", json=said)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported")
    more = {"model": "echo", "input": [[1, 2]], "messages": asked["messages"]}
    answer = httpx.post(f"{running.url}/v1/embeddings", json=more)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages")
    assert not running.gateway.decisions


def test_whoever_runs_the_engines_may_let_them_fetch(serve: Callable[..., Running]) -> None:
    part = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/a.png"}}
    asked = {"model": "echo", "messages": [{"role": "user", "content": [TEXT, part]}]}
    running = serve(gateway={"remote_media": True})
    assert httpx.post(f"{running.url}/v1/chat/completions", json=asked).status_code == 200
