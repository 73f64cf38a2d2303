"""``/metrics``."""

from __future__ import annotations

from sage_gateway.app import Route
from sage_gateway.exchange import Exchange


async def scrape(exchange: Exchange) -> None:
    """All metrics of this gateway, as Prometheus text."""
    await exchange.reply(exchange.gateway.metrics.text(), content_type=b"text/plain; version=0.0.4; charset=utf-8")


ROUTES = (Route("GET", "/metrics", scrape, "anyone"),)
