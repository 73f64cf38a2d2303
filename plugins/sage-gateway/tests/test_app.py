from __future__ import annotations

import httpx
from sage_gateway.app import App, Route
from sage_gateway.errors import ApiError
from sage_gateway.exchange import Exchange
from sage_gateway.testing import Running


def test_every_answer_has_an_id_and_errors_too(running: Running) -> None:
    ids = [httpx.get(running.url + path).headers["x-sage-request-id"] for path in ("/health", "/v1/models", "/nothing")]
    assert len(set(ids)) == 3


class TestHandlers:
    """Handlers that do what none should."""

    async def ask(self, app: App, path: str) -> list[dict[str, object]]:
        sent: list[dict[str, object]] = []

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
        await app(scope, receive, send)  # type: ignore[arg-type]
        return sent

    def test_a_defect_is_answered_without_its_words(self, running: Running) -> None:
        async def broken(exchange: Exchange) -> None:
            raise KeyError("a secret")

        app = App(running.gateway, [Route("GET", "/x", broken, "anyone")])
        start, body = running.wait(self.ask(app, "/x"))
        assert start["status"] == 500
        assert b"secret" not in body["body"]  # type: ignore[operator]

    def test_an_error_in_a_stream_is_its_last_event(self, running: Running) -> None:
        async def broken(exchange: Exchange) -> None:
            await exchange.begin()
            await exchange.write(b"data: 1\n\n")
            raise ApiError(502, "gone", code="engine_failed")

        app = App(running.gateway, [Route("GET", "/x", broken, "anyone")])
        start, piece, end = running.wait(self.ask(app, "/x"))
        assert start["status"] == 200
        assert piece["body"] == b"data: 1\n\n"
        assert end["body"].startswith(b'data: {"error":{"message":"gone"')  # type: ignore[attr-defined]
        assert not end.get("more_body")
