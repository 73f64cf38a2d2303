"""The plugin host: loads entry points one by one, quarantines what fails, and fills the lazy registries.

There is no global host. The CLI makes one per process, each test makes its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import Distribution, distributions
from typing import Any

import msgspec
import pluggy

from sage_core.common import hookspecs
from sage_core.common.contracts import (
    Backend,
    NodeFilter,
    NodePicker,
    NodeScorer,
    Ordering,
    Scheduler,
)
from sage_core.common.errors import PluginError, SageError, suggest
from sage_core.common.operators import MARK
from sage_core.common.registry import Registry

#: Registry attribute of `Host` → the hook that fills it and the word for one entry.
_TABLES = {
    "operators": ("sage_operators", "operator"),
    "schedulers": ("sage_schedulers", "scheduler"),
    "selectors": ("sage_node_selectors", "node selector"),
    "backends": ("sage_backends", "backend"),
    "commands": ("sage_commands", "command"),
}


class PluginInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin as `sage plugins list` shows it; `error` is set when it is quarantined."""

    name: str
    version: str = ""
    distribution: str = ""
    hooks: tuple[str, ...] = ()
    error: str = ""


class Host:
    """One composition of SAGE with its plugins.

    Args:
        plugins: plugin modules or objects by name; None loads the installed entry points, filtered by
            ``SAGE_PLUGINS`` (comma-separated names; an empty string loads none).
        builtins: the plugin that brings the defaults, always loaded first; None leaves them out.
    """

    def __init__(self, plugins: Mapping[str, object] | None = None, *, builtins: object | None = None) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._infos: dict[str, PluginInfo] = {}
        self.operators = Registry("operator")
        self.schedulers = Registry("scheduler")
        self.selectors = Registry("node selector")
        self.backends = Registry("backend")
        self.commands = Registry("command")
        if builtins is not None:
            self._register("builtins", lambda: builtins, None)
        if plugins is not None:
            for name, plugin in plugins.items():
                self._register(name, lambda plugin=plugin: plugin, None)  # type: ignore[misc]
        else:
            for name, load, dist in _entry_points(os.environ.get("SAGE_PLUGINS")):
                self._register(name, load, dist)
        if os.environ.get("SAGE_TRACE_HOOKS") == "1":
            self._manager.add_hookcall_monitoring(_trace_before, _trace_after)

    @property
    def hook(self) -> Any:
        """Call observing hooks through this: ``host.hook.sage_on_run_finished(run=run)``."""
        return self._manager.hook

    def plugins(self) -> list[PluginInfo]:
        """Every plugin that was found, loaded or quarantined, by name."""
        return [self._infos[name] for name in sorted(self._infos)]

    def contributions(self, plugin: str) -> dict[str, list[str]]:
        """Names that one plugin offers, by kind, without importing anything."""
        found = {}
        for table in _TABLES:
            registry: Registry = getattr(self, table)
            names = [name for name in registry if registry.origin(name) == plugin]
            if names:
                found[table] = names
        return found

    def check(self) -> list[SageError]:
        """Import every entry and hold it against its contract; return everything that is wrong."""
        problems: list[SageError] = [PluginError(info.name, info.error) for info in self.plugins() if info.error]
        for table in _TABLES:
            registry: Registry = getattr(self, table)
            problems += registry.duplicates
            for name in registry:
                try:
                    problem = _EXPECTED[table](registry[name])
                except SageError as error:
                    problems.append(error)
                else:
                    if problem:
                        problems.append(PluginError(registry.origin(name), f"{registry.kind} {name!r} {problem}"))
        return problems

    def _register(self, name: str, load: Callable[[], object], dist: Distribution | None) -> None:
        version = dist.version if dist else ""
        info = PluginInfo(name=name, version=version, distribution=dist.name if dist else "")
        try:
            plugin = load()
            unknown = _unknown_hooks(plugin)
            if unknown:
                raise PluginError(name, f"implements no known hook: {unknown}", _known_hooks(unknown))
            self._manager.register(plugin, name)
            hooks = tuple(sorted(caller.name for caller in self._manager.get_hookcallers(plugin) or ()))
            offers = {table: self._offer(name, hook) for table, (hook, _) in _TABLES.items() if hook in hooks}
        except Exception as error:  # noqa: BLE001 - one broken plugin must not take the others or the CLI down
            self._manager.unregister(name=name) if self._manager.has_plugin(name) else None
            reason = error.args[1] if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
            self._infos[name] = msgspec.structs.replace(info, error=reason)
            return
        for table, entries in offers.items():
            getattr(self, table).add(name, entries)
        self._infos[name] = msgspec.structs.replace(info, hooks=hooks)

    def _offer(self, plugin: str, hook: str) -> Mapping[str, str]:
        entries = self._manager.subset_hook_caller(
            hook, [other for other in self._manager.get_plugins() if self._manager.get_name(other) != plugin]
        )()
        merged: dict[str, str] = {}
        for mapping in entries:
            for name, target in mapping.items():
                if not (isinstance(target, str) and ":" in target):
                    raise PluginError(plugin, f"{hook}: {name!r} must map to 'module:attribute', not {target!r}")
                merged[name] = target
        return merged


def _entry_points(allow: str | None) -> Iterable[tuple[str, Callable[[], object], Distribution]]:
    wanted = None if allow is None else {name.strip() for name in allow.split(",") if name.strip()}
    if wanted is not None and not wanted:
        return
    seen: set[str] = set()
    for dist in distributions():
        for point in dist.entry_points:
            if point.group == hookspecs.PROJECT and point.name not in seen:
                seen.add(point.name)
                if wanted is None or point.name in wanted:
                    yield point.name, point.load, dist


def _unknown_hooks(plugin: object) -> str:
    known = {name for name in vars(hookspecs) if name.startswith("sage_")}
    strangers = sorted(
        name
        for name in dir(plugin)
        if name.startswith("sage_") and name not in known and hasattr(getattr(plugin, name), "sage_impl")
    )
    return ", ".join(strangers)


def _known_hooks(unknown: str) -> str:
    known = sorted(name for name in vars(hookspecs) if name.startswith("sage_"))
    return f"known hooks: {', '.join(known)}.{suggest(unknown.split(', ')[0], known)}"


def _trace_before(hook: str, impls: object, kwargs: Mapping[str, object]) -> None:
    print(f"sage: hook {hook}({', '.join(f'{key}={value!r:.80}' for key, value in kwargs.items())})", file=sys.stderr)


def _trace_after(outcome: object, hook: str, impls: Sequence[pluggy.HookImpl], kwargs: Mapping[str, object]) -> None:
    called = ", ".join(impl.plugin_name for impl in impls)
    print(f"sage: hook {hook} answered by [{called}]", file=sys.stderr)


def _is(*protocols: type) -> Callable[[object], str]:
    names = " or ".join(protocol.__name__ for protocol in protocols)

    def problem(target: object) -> str:
        # Protocols with methods only: on a class, the methods are attributes too, so isinstance holds for it.
        return "" if isinstance(target, type) and isinstance(target, protocols) else f"is not a class that is a {names}"

    return problem


def _backend(target: object) -> str:
    missing = [method for method in ("identify", "open") if not callable(getattr(target, method, None))]
    return f"is not a {Backend.__name__}: {' and '.join(missing)} missing" if missing else ""


_EXPECTED: dict[str, Callable[[object], str]] = {
    "operators": lambda target: "" if hasattr(target, MARK) else "is not marked with @operator",
    "schedulers": _is(Ordering, Scheduler),
    "selectors": _is(NodeFilter, NodeScorer, NodePicker),
    "backends": _backend,
    "commands": lambda target: "" if hasattr(target, "params") and hasattr(target, "invoke") else "is no click command",
}
