"""Plugins that are installed: entry points of the group ``sage``, in an order that is the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import Distribution, distributions
from typing import NoReturn

import msgspec

from sage_core.common import hookspecs
from sage_core.common.errors import PluginError

_UNNAMED = "unnamed distribution"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin that can be loaded."""

    name: str
    load: Callable[[], object]
    version: str = ""
    distribution: str = ""


def installed_plugins() -> list[Found]:
    """Find every installed plugin, by name; one name in two distributions appears twice."""
    found: list[Found] = []
    seen: set[str] = set()
    for dist in distributions():
        if _offers(dist):
            # Reading METADATA costs more than the search, so only a plugin's is read.
            name, version = _identity(dist)
            # The first on sys.path is the one that Python imports.
            if name not in seen:
                seen.add(name)
                found += _plugins(dist, name, version)
    return sorted(found, key=lambda each: (each.name, each.distribution))


def _offers(dist: Distribution) -> bool:
    try:
        text = dist.read_text("entry_points.txt")
    except (OSError, UnicodeDecodeError):
        return False
    # Nearly all distributions have no such group; parsing their files would double the cost of the search.
    return text is not None and f"[{hookspecs.PROJECT}]" in text.replace(" ", "")


def _identity(dist: Distribution) -> tuple[str, str]:
    try:
        # A missing field is None in some Python versions and an error in others.
        return dist.metadata["Name"] or _UNNAMED, dist.metadata["Version"] or ""
    except Exception:  # noqa: BLE001 - as said above, and a damaged file may raise anything
        return _UNNAMED, ""


def _plugins(dist: Distribution, name: str, version: str) -> list[Found]:
    try:
        points = [point for point in dist.entry_points if point.group == hookspecs.PROJECT]
    except Exception as error:  # noqa: BLE001 - the standard library's parser raises whatever the damage leads to
        reason = f"entry_points.txt cannot be read: {error}"

        def refuse() -> NoReturn:
            raise PluginError(name, reason, f"reinstall {name}")

        return [Found(name=name, load=refuse, version=version, distribution=name)]
    return [Found(name=point.name, load=point.load, version=version, distribution=name) for point in points]
