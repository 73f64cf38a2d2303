from __future__ import annotations

from collections.abc import Callable

import httpx
from sage_gateway.app import App, Route
from sage_gateway.errors import ApiError
from sage_gateway.exchange import Exchange
from sage_gateway.routes import MODULES, create_app
from sage_gateway.testing import Running

Serve = Callable[..., Running]


def test_no_two_routes_share_method_and_path(running: Running) -> None:
    routes = [(route.method, route.path) for module in MODULES for route in module.ROUTES]
    assert len(routes) == len(set(routes))
    assert len(create_app(running.gateway).routes) == len(routes) + 1


def test_only_health_and_what_describes_the_gateway_need_no_key(running: Running) -> None:
    open_to_all = {route.path for route in create_app(running.gateway).routes if route.access == "anyone"}
    assert {"/health"} <= open_to_all <= {"/health", "/metrics", "/openapi.json", "/{path:path}"}


def test_changes_need_an_admin(running: Running) -> None:
    changes = [route for route in create_app(running.gateway).routes if route.path.startswith("/sage/v1/")]
    assert {route.access for route in changes if route.method != "GET"} == {"admin"}


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
