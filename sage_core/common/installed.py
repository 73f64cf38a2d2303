"""Plugins that are installed: entry points of the group ``sage``, in an order that is the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import Distribution, EntryPoint, distributions

import msgspec

from sage_core.common import hookspecs


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin that can be loaded."""

    name: str
    load: Callable[[], object]
    version: str = ""
    distribution: str = ""


def installed_plugins() -> list[Found]:
    """Find every installed plugin, by name; one name in two distributions appears twice."""
    found = []
    seen: set[str] = set()
    for dist in distributions():
        points = _points(dist)
        # Reading METADATA costs more than the search, so only a plugin's is read.
        if points and dist.name not in seen:
            # The first on sys.path is the one that Python imports.
            seen.add(dist.name)
            found += [Found(name=p.name, load=p.load, version=dist.version, distribution=dist.name) for p in points]
    return sorted(found, key=lambda each: (each.name, each.distribution))


def _points(dist: Distribution) -> list[EntryPoint]:
    try:
        text = dist.read_text("entry_points.txt")
    except (OSError, UnicodeDecodeError):
        return []
    # Nearly all distributions have no such group; parsing their files would double the cost of the search.
    if not text or f"[{hookspecs.PROJECT}]" not in text.replace(" ", ""):
        return []
    return [point for point in dist.entry_points if point.group == hookspecs.PROJECT]
