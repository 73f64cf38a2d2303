"""Hook implementations: found and judged before pluggy sees them, and called so that no observer can stop another."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

import pluggy

from sage_core.common import hookspecs
from sage_core.common.errors import PluginError, suggest
from sage_core.common.telemetry import log

#: Attribute that `hookimpl` leaves on a function.
_IMPL = f"{hookspecs.PROJECT}_impl"


def known_hooks() -> dict[str, Callable[..., object]]:
    """Every hookspec by name."""
    return {name: spec for name, spec in vars(hookspecs).items() if hasattr(spec, f"{hookspecs.PROJECT}_spec")}


def find_hooks(plugin: str, module: object) -> dict[str, Callable[..., object]]:
    """Return a plugin's hook implementations by hook; raises `PluginError` for what pluggy would pass in silence."""
    known = known_hooks()
    found: dict[str, Callable[..., object]] = {}
    for attribute in dir(module):
        method = getattr(module, attribute, None)
        if not inspect.isroutine(method):
            continue
        options = getattr(method, _IMPL, None)
        if options is None:
            if attribute in known:
                raise PluginError(plugin, f"{attribute} is not marked with @hookimpl", "from sage_core import hookimpl")
            continue
        name = options.get("specname") or attribute
        if name not in known:
            hooks = ", ".join(sorted(known))
            raise PluginError(plugin, f"{name} is no hook.{suggest(name, list(known))}", f"hooks: {hooks}")
        _judge(plugin, name, method, options)
        found[name] = method
    if not found:
        raise PluginError(plugin, "implements no hook", f"hooks: {', '.join(sorted(known))}")
    return found


def _judge(plugin: str, name: str, method: Callable[..., object], options: dict[str, Any]) -> None:
    if options.get("wrapper") or options.get("hookwrapper"):
        raise PluginError(plugin, f"{name} is a wrapper", "hooks offer names or observe; none can be wrapped")
    if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
        raise PluginError(plugin, f"{name} is async", "hooks are plain functions; hand slow work to a queue")
    taken = list(inspect.signature(known_hooks()[name]).parameters)
    for parameter in inspect.signature(method).parameters.values():
        if parameter.default is not parameter.empty:
            raise PluginError(
                plugin,
                f"{name}: argument {parameter.name!r} has a default value",
                "pluggy does not pass arguments that have a default; remove it",
            )
        if parameter.name not in taken:
            offered = f"it may take: {', '.join(taken)}" if taken else "it takes none"
            raise PluginError(plugin, f"{name} has no argument {parameter.name!r}", offered)


class Observers:
    """Calls ``sage_on_…`` hooks: every plugin hears of the event, and what one raises is logged, not raised."""

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self._manager = manager

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name not in known_hooks():
            raise AttributeError(f"no hook is named {name!r}.{suggest(name, list(known_hooks()))}")

        def call(**arguments: object) -> None:
            plugins = self._manager.get_plugins()
            # The order in which pluggy calls them: the last registered first.
            for implementation in reversed(getattr(self._manager.hook, name).get_hookimpls()):
                others = [plugin for plugin in plugins if plugin is not implementation.plugin]
                try:
                    self._manager.subset_hook_caller(name, others)(**arguments)
                except Exception as error:  # noqa: BLE001 - an observer must not fail what it observes
                    problem = f"{type(error).__name__}: {error}"
                    plugin = implementation.plugin_name
                    log("observer_failed", level=logging.WARNING, hook=name, plugin=plugin, error=problem)

        return call
