"""``/v1/models`` and ``/health``."""

from __future__ import annotations

from sage_gateway import workflows
from sage_gateway.app import Route
from sage_gateway.exchange import Exchange


async def listed(exchange: Exchange) -> None:
    """Every model that the account may ask for."""
    gateway = exchange.gateway
    account = exchange.account
    data = [_model(name) for name in (*gateway.names(account), *await workflows.names(gateway, account))]
    await exchange.answer({"object": "list", "data": data})


async def one(exchange: Exchange) -> None:
    """One model."""
    gateway, name = exchange.gateway, exchange.path["model"]
    if name.startswith(workflows.PREFIX):
        await workflows.find(gateway, name, exchange.account)
    else:
        gateway.model(name, exchange.account)
    await exchange.answer(_model(name))


async def health(exchange: Exchange) -> None:
    """That the gateway answers; engines are under ``/sage/v1/engines``."""
    await exchange.answer({"status": "ok"})


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "sage"}


ROUTES = (
    Route("GET", "/health", health, "anyone"),
    Route("GET", "/v1/models", listed),
    # Names such as "workflow/ask-docs" hold a slash.
    Route("GET", "/v1/models/{model:path}", one),
)
