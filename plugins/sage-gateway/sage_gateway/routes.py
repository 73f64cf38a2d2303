"""Every route of the gateway, in the order in which a reader would look for them."""

from __future__ import annotations

from sage_gateway import (
    admin,
    batches,
    chat,
    completions,
    embeddings,
    files,
    models,
    openapi,
    rerank,
    responses,
    runs,
    scrape,
    tokenize,
    triggers,
)
from sage_gateway.app import App
from sage_gateway.gateway import Gateway

#: Each has `ROUTES`; those of triggers take every path that is left, so they are the last.
MODULES = (
    chat,
    completions,
    embeddings,
    rerank,
    responses,
    models,
    files,
    batches,
    scrape,
    runs,
    admin,
    tokenize,
    triggers,
)


def create_app(gateway: Gateway) -> App:
    """The application with the routes of every module."""
    routes = [route for module in MODULES for route in module.ROUTES]
    return App(gateway, [openapi.describing(routes), *routes])
