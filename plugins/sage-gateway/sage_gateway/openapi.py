"""``/openapi.json``: every route of this gateway, with the schemas that its bodies are read by."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from sage_core.serving import DeployedGraph
from sage_gateway.app import Route
from sage_gateway.asked import Chat, Completion
from sage_gateway.batching import NewBatch
from sage_gateway.embeddings import Embedding
from sage_gateway.exchange import Exchange
from sage_gateway.rerank import Rerank
from sage_gateway.response_input import Wanted
from sage_gateway.tokenize import Tokenize
from sage_gateway.workflows import PREFIX

#: What the body of a route is read as; a route that is not named takes none, or any JSON object.
BODIES: Mapping[tuple[str, str], type[msgspec.Struct]] = {
    ("POST", "/v1/chat/completions"): Chat,
    ("POST", "/v1/completions"): Completion,
    ("POST", "/v1/embeddings"): Embedding,
    ("POST", "/v1/rerank"): Rerank,
    ("POST", "/v1/responses"): Wanted,
    ("POST", "/v1/batches"): NewBatch,
    ("POST", "/sage/v1/tokenize"): Tokenize,
}
#: Query parameters of the routes that have any.
QUERIES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("GET", "/v1/files"): ("limit", "after", "purpose", "order"),
    ("GET", "/v1/batches"): ("limit", "after"),
    ("GET", "/sage/v1/runs"): ("limit", "workflow"),
}
#: Answers that are no JSON.
_TYPES = {"/metrics": "text/plain", "/v1/files/{file}/content": "application/octet-stream"}
_UPLOAD = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"type": "string"}},
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
#: Types of a workflow's params, as JSON Schema has them; a param of another type may be anything.
_PARAM_TYPES = {"string": "string", "path": "string", "int": "integer", "float": "number", "bool": "boolean"}


def document(routes: Iterable[Route], deployed: Mapping[str, DeployedGraph], number: str) -> dict[str, Any]:
    """The OpenAPI document of these routes and of the paths that deployed workflows declare."""
    schemas, components = msgspec.json.schema_components(BODIES.values(), ref_template="#/components/schemas/{name}")
    bodies = dict(zip(BODIES, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        # What answers every other path is described by the workflows below.
        if route.path != "/{path:path}":
            path = _PARAMETER.sub(r"{\1}", route.path)
            paths.setdefault(path, {})[route.method.lower()] = _operation(route, bodies.get((route.method, route.path)))
    for name, each in sorted(deployed.items()):
        for trigger in each.graph.triggers:
            if trigger.kind == "http":
                operation = _trigger(name, each, trigger.settings["method"])
                paths.setdefault(trigger.settings["path"], {}).setdefault(trigger.settings["method"].lower(), operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "SAGE gateway", "version": number},
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _operation(route: Route, body: Mapping[str, Any] | None) -> dict[str, Any]:
    key = (route.method, route.path)
    found: dict[str, Any] = {
        "summary": (inspect.getdoc(route.handler) or "").split("\n")[0],
        "operationId": f"{route.method.lower()}{re.sub(r'[^a-z0-9]+', '_', route.path.lower())}".rstrip("_"),
        "parameters": [
            *(_parameter(name, "path") for name in _PARAMETER.findall(route.path)),
            *(_parameter(name, "query") for name in QUERIES.get(key, ())),
        ],
        "responses": _responses(_TYPES.get(route.path, "application/json")),
    }
    if route.access == "anyone":
        found["security"] = []
    if route.access == "admin":
        found["description"] = "Needs an admin key."
    if key == ("POST", "/v1/files"):
        found["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": _UPLOAD}}}
    elif body is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    elif route.method in ("POST", "PUT"):
        found["requestBody"] = {"content": {"application/json": {"schema": {"type": "object"}}}}
    return found


def _trigger(name: str, deployed: DeployedGraph, method: str) -> dict[str, Any]:
    schemas = {}
    for param in deployed.graph.params.values():
        kind = _PARAM_TYPES.get(param.type)
        schemas[param.name] = {"description": param.description, **({"type": kind} if kind else {})}
    found: dict[str, Any] = {
        "summary": f"Start a run of the workflow {name}.",
        "operationId": f"{method.lower()}_workflow_{re.sub(r'[^A-Za-z0-9]+', '_', name)}",
        "parameters": [{"name": "prefer", "in": "header", "schema": {"type": "string"}, "example": "wait=30"}],
        "responses": {**_responses("application/json"), "202": {"description": "The run is queued."}},
    }
    if method == "GET":
        found["parameters"] += [{"name": each, "in": "query", "schema": schema} for each, schema in schemas.items()]
    else:
        needed = [each.name for each in deployed.graph.params.values() if each.required]
        schema = {"type": "object", "properties": schemas, "required": [n for n in needed if n not in deployed.given]}
        found["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return found


def _parameter(name: str, place: str) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": 1} if name == "limit" else {"type": "string"}
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _responses(content_type: str) -> dict[str, Any]:
    error = {"schema": {"$ref": "#/components/schemas/Error"}}
    return {
        "200": {"description": "The answer.", "content": {content_type: {}}},
        "default": {"description": "What is wrong.", "content": {"application/json": error}},
    }


def describing(routes: Sequence[Route]) -> Route:
    """The route that describes itself and these."""

    async def described(exchange: Exchange) -> None:
        """This document."""
        deployed = await exchange.gateway.desk.deployed()
        seen = {name: each for name, each in deployed.items() if exchange.account.allows(f"{PREFIX}{name}")}
        await exchange.answer(document((*routes, own), seen, version("sage-gateway")))

    own = Route("GET", "/openapi.json", described)
    return own
