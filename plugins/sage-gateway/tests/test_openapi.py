"""The OpenAPI document, and what Schemathesis finds by it: no answer of 500 or above, and none that does not come."""

from __future__ import annotations

import contextlib
import json
import os
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from sage_gateway.routes import MODULES
from sage_gateway.testing import Running
from schemathesis.generation import GenerationMode

MODELS = {"echo": {"backend": "fake"}, "plain": {"backend": "plain"}}
#: Requests of each kind that are made for each route; more of them are drawn afresh.
FEW = 6
EXAMPLES = int(os.environ.get("SAGE_SCHEMATHESIS", FEW))
QUIET = list(HealthCheck)
#: Seconds in which every answer has to come.
PATIENCE = 10


def fetched(running: Running) -> dict[str, Any]:
    with urllib.request.urlopen(f"{running.url}/openapi.json", timeout=20) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found


def test_every_route_is_described(running: Running) -> None:
    document = fetched(running)
    assert document["openapi"] == "3.1.0"
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    served = {(route.path.replace(":path", ""), route.method) for module in MODULES for route in module.ROUTES}
    assert described - {("/openapi.json", "GET")} == {each for each in served if each[0] != "/{path}"}
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert chat["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Chat"}
    assert "messages" in document["components"]["schemas"]["Chat"]["required"]
    assert document["paths"]["/health"]["get"]["security"] == []


@pytest.mark.timeout(200 + 10 * EXAMPLES)
def test_no_request_breaks_the_gateway(serve: Callable[..., Running]) -> None:
    running = serve(MODELS)
    schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    tried: dict[str, int] = {}
    results: Iterable[Any] = schema.get_all_operations()
    for found in results:
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            _try(operation, operation.as_strategy(generation_mode=mode), tried)
    paths = fetched(running)["paths"]
    every = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    # The document itself is not tried by what it says.
    assert set(tried) == every - {"GET /openapi.json"}
    assert min(tried.values()) >= 1
    assert running.settled()


def _try(operation: Any, cases: Any, tried: dict[str, int]) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=EXAMPLES == FEW,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def check(case: Any) -> None:
        if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
            # Names at random would only ever be unknown ones.
            case.body["model"] = "echo" if len(case.body["model"]) % 2 else "plain"
        tried[operation.label] = tried.get(operation.label, 0) + 1
        answer = case.call(timeout=PATIENCE)
        assert answer.status_code < 500, (answer.status_code, answer.text, case.as_curl_command())

    # Nothing can be wrong with a request without parameters and body.
    with contextlib.suppress(Unsatisfiable):
        check()
