from __future__ import annotations

from sage_gateway.routes import MODULES, create_app
from sage_gateway.testing import Running


def test_no_two_routes_share_method_and_path(running: Running) -> None:
    routes = [(route.method, route.path) for module in MODULES for route in module.ROUTES]
    assert len(routes) == len(set(routes))
    assert len(create_app(running.gateway).routes) == len(routes) + 1


def test_only_health_and_what_describes_the_gateway_need_no_key(running: Running) -> None:
    open_to_all = {route.path for route in create_app(running.gateway).routes if route.access == "anyone"}
    assert {"/health"} <= open_to_all <= {"/health", "/metrics", "/openapi.json", "/{path:path}"}


def test_changes_need_an_admin(running: Running) -> None:
    changes = [route for route in create_app(running.gateway).routes if route.path.startswith("/sage/v1/")]
    others = {route.path for route in changes if route.method != "GET" and route.access != "admin"}
    # One stops a run of the caller's own tenant, the other changes nothing.
    assert others == {"/sage/v1/runs/{run}/cancel", "/sage/v1/tokenize"}
    assert {route.access for route in changes if route.path in others} == {"caller"}
