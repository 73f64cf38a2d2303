"""``--param NAME=VALUE`` on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from sage_core.common.errors import UsageError


def parse(params: Sequence[str]) -> dict[str, str]:
    """Split the options; raises `UsageError` for one without ``=`` or a name given twice."""
    given: dict[str, str] = {}
    for param in params:
        name, equals, value = param.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--param {param!r} is not NAME=VALUE", 'for example: --param question="What is SAGE?"')
        if name.strip() in given:
            raise UsageError(f"--param {name.strip()} is given twice", "give each parameter once")
        given[name.strip()] = value
    return given
