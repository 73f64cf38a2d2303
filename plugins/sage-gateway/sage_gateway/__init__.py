"""One OpenAI-compatible endpoint before every model of a SAGE deployment: `sage serve` and `sage engines`."""

from __future__ import annotations

from collections.abc import Mapping

from sage_core import hookimpl


@hookimpl
def sage_commands() -> Mapping[str, str]:
    """The server, what it tells and is told about its engines, and the keys it knows."""
    return {
        "serve": "sage_gateway.serve:serve",
        "engines": "sage_gateway.engines:engines",
        "keys": "sage_gateway.keys_command:keys",
    }


@hookimpl
def sage_operators() -> Mapping[str, str]:
    """The steps of a batch."""
    return {
        "gateway.lines": "sage_gateway.batch_operators:lines",
        "gateway.ask": "sage_gateway.batch_operators:ask",
        "gateway.write": "sage_gateway.batch_operators:Write",
    }
