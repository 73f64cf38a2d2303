"""The ASGI application: a table of routes before Starlette's router, and one place where every error is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Literal, NoReturn

import msgspec
from starlette.routing import Route as PatternRoute
from starlette.routing import Router

from sage_gateway.errors import ApiError
from sage_gateway.exchange import Exchange, Gone, Message
from sage_gateway.gateway import Gateway

Handler = Callable[[Exchange], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Route(msgspec.Struct, frozen=True):
    """A method and a path, and who answers; ``{name}`` in the path matches one segment, see ``Exchange.path``."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    handler: Handler
    #: Who may ask: anyone at all, whoever has a key, or an admin's key only.
    access: Literal["anyone", "caller", "admin"] = "caller"


class App:
    """Routes a request to its handler, and sees to it that each is answered once."""

    def __init__(self, gateway: Gateway, routes: Iterable[Route]) -> None:
        self.gateway = gateway
        self.routes = tuple(routes)
        by_path: dict[str, dict[str, Route]] = {}
        for route in self.routes:
            by_path.setdefault(route.path, {})[route.method] = route
        self._exact = {path: methods for path, methods in by_path.items() if "{" not in path}
        patterns = [
            PatternRoute(path, endpoint=_Endpoint(self, methods)) for path, methods in by_path.items() if "{" in path
        ]
        self._router = Router(patterns, default=_Endpoint(self, {}), redirect_slashes=False)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        methods = self._exact.get(scope["path"]) if scope["type"] == "http" else None
        if methods is None:
            await self._router(scope, receive, send)
        else:
            await self.serve(methods, scope, receive, send)

    async def serve(self, methods: Mapping[str, Route], scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request by the route of its method."""
        if scope["type"] != "http":
            # No route is a web socket.
            await send({"type": "websocket.close", "code": 1000})
            return
        exchange = Exchange(self.gateway, scope, receive, send, scope.get("path_params", {}))
        try:
            route = methods.get(scope["method"]) or _refused(methods, scope)
            if route.access != "anyone":
                exchange.account = self.gateway.accounts.known(exchange.token)
                if route.access == "admin" and not exchange.account.admin:
                    raise ApiError(403, "this needs an admin key", code="admin_only")
            await route.handler(exchange)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not exchange.gone or task is None:
                raise
            task.uncancel()
        except Gone:
            pass
        except Exception as error:  # noqa: BLE001 - every error is answered, and only logged where it is a defect
            await exchange.fail(error)
        finally:
            exchange.close()


class _Endpoint:
    """The routes of one path as an ASGI application; a class, so that Starlette hands it the bare scope."""

    def __init__(self, app: App, methods: Mapping[str, Route]) -> None:
        self._app = app
        self._methods = methods

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        await self._app.serve(self._methods, scope, receive, send)


def _refused(methods: Mapping[str, Route], scope: Message) -> NoReturn:
    if not methods:
        raise ApiError(404, f"no route is {scope['path']!r}", code="unknown_url")
    allowed = ", ".join(sorted(methods))
    raise ApiError(405, f"{scope['path']} takes {allowed}", code="method_not_allowed")
