"""The plugin host: loads entry points one by one, quarantines what fails, and fills the lazy registries.

There is no global host. The CLI makes one per process, each test makes its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

import msgspec
import pluggy

from sage_core.common import hookspecs
from sage_core.common.contracts import Backend, NodeFilter, NodePicker, NodeScorer, Ordering, Scheduler, TriggerKind
from sage_core.common.errors import DuplicateName, PluginError, SageError, suggest
from sage_core.common.hooks import Observers, find_hooks
from sage_core.common.installed import Found, installed_plugins
from sage_core.common.operators import MARK, OperatorInfo
from sage_core.common.registry import Registry

#: Registry attribute of `Host` → the hook that fills it.
_TABLES = {
    "operators": "sage_operators",
    "schedulers": "sage_schedulers",
    "selectors": "sage_node_selectors",
    "backends": "sage_backends",
    "triggers": "sage_triggers",
    "commands": "sage_commands",
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
        self._duplicates: list[DuplicateName] = []
        self.operators = Registry("operator")
        self.schedulers = Registry("scheduler")
        self.selectors = Registry("node selector")
        self.backends = Registry("backend")
        self.triggers = Registry("trigger")
        self.commands = Registry("command")
        if os.environ.get("SAGE_TRACE_HOOKS") == "1":
            self._manager.add_hookcall_monitoring(_trace_before, _trace_after)
        if builtins is not None:
            self._register(Found(name="builtins", load=lambda: builtins))
        left_out: tuple[str, ...] = ()
        if plugins is None:
            found, left_out = self._allowed(os.environ.get("SAGE_PLUGINS"))
        else:
            found = [_given(name, plugin) for name, plugin in plugins.items()]
        for each in found:
            self._register(each)
        self._hint_at_absent(left_out)

    @property
    def hook(self) -> Observers:
        """Call observing hooks through this: ``host.hook.sage_on_run_finished(run=run)``."""
        return Observers(self._manager)

    def plugins(self) -> list[PluginInfo]:
        """Every plugin that was found, loaded or quarantined, by name."""
        return [self._infos[name] for name in sorted(self._infos)]

    def modules(self) -> dict[str, str]:
        """Importable module behind each loaded plugin: what a child process needs to make an equal host."""
        loaded = self._manager.list_name_plugin()
        return {name: plugin.__name__ for name, plugin in loaded if isinstance(plugin, ModuleType)}

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
        problems += self._duplicates
        for table in _TABLES:
            registry: Registry = getattr(self, table)
            problems += registry.duplicates
            for name in registry:
                try:
                    problem = _EXPECTED[table](name, registry[name])
                except SageError as error:
                    problems.append(error)
                else:
                    if problem:
                        problems.append(PluginError(registry.origin(name), f"{registry.kind} {name!r} {problem}"))
        return problems

    def _allowed(self, allow: str | None) -> tuple[list[Found], tuple[str, ...]]:
        wanted = None if allow is None else {name.strip() for name in allow.split(",") if name.strip()}
        if wanted is not None and not wanted:
            return [], ()
        installed = installed_plugins()
        if wanted is None:
            return installed, ()
        names = {each.name for each in installed}
        for name in sorted(wanted - names):
            # Not raised: with a slip in the variable, `sage plugins list` must still be able to say so.
            known = f"Installed: {', '.join(sorted(names))}." if names else "No plugin is installed."
            reason = f"named in SAGE_PLUGINS, but not installed.{suggest(name, sorted(names))} {known}"
            self._infos[name] = PluginInfo(name=name, error=reason)
        return [each for each in installed if each.name in wanted], tuple(sorted(names - wanted))

    def _register(self, found: Found) -> None:
        name = found.name
        if name in self._infos:
            first = self._infos[name].distribution or name
            self._duplicates.append(DuplicateName("plugin", name, first, found.distribution or name))
            return
        info = PluginInfo(name=name, version=found.version, distribution=found.distribution)
        try:
            plugin = found.load()
            hooks = tuple(sorted(find_hooks(name, plugin)))
            self._manager.register(plugin, name)
            offers = {table: self._offer(name, plugin, hook) for table, hook in _TABLES.items() if hook in hooks}
        except (Exception, SystemExit) as error:  # noqa: BLE001 - one broken plugin must not take the CLI down
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            self._infos[name] = msgspec.structs.replace(info, error=_reason(error))
            return
        for table, entries in offers.items():
            getattr(self, table).add(name, entries)
        self._infos[name] = msgspec.structs.replace(info, hooks=hooks)

    def _offer(self, name: str, plugin: object, hook: str) -> Mapping[str, str]:
        others = [other for other in self._manager.get_plugins() if other is not plugin]
        merged: dict[str, str] = {}
        for entries in self._manager.subset_hook_caller(hook, others)():
            if not isinstance(entries, Mapping):
                shape = "{'name': 'module:attribute'}"
                raise PluginError(name, f"{hook} returns {type(entries).__name__}, not a mapping", f"return {shape}")
            for key, target in entries.items():
                module, _, attribute = target.partition(":") if isinstance(target, str) else ("", "", "")
                if not (isinstance(key, str) and key and module and attribute):
                    raise PluginError(name, f"{hook}: {key!r} must map to 'module:attribute', not {target!r}")
                merged[key] = target
        return merged

    def _hint_at_absent(self, left_out: Sequence[str]) -> None:
        broken = [f"{info.name} ({info.error.splitlines()[0]})" for info in self.plugins() if info.error]
        hints = []
        if broken:
            hints.append(f"Not loaded: {', '.join(broken)}.")
        if left_out:
            hints.append(f"SAGE_PLUGINS leaves out: {', '.join(left_out)}.")
        for table in _TABLES:
            getattr(self, table).hint = " ".join(hints)


def _given(name: str, plugin: object) -> Found:
    return Found(name=name, load=lambda: plugin)


def _reason(error: BaseException) -> str:
    if isinstance(error, PluginError):
        _, problem, help = error.args
        return f"{problem}\n  help: {help}" if help else f"{problem}"
    return f"{type(error).__name__}: {error}"


def _trace_before(hook: str, impls: object, kwargs: Mapping[str, object]) -> None:
    print(f"sage: hook {hook}({', '.join(f'{key}={value!r:.80}' for key, value in kwargs.items())})", file=sys.stderr)


def _trace_after(outcome: object, hook: str, impls: Sequence[pluggy.HookImpl], kwargs: Mapping[str, object]) -> None:
    called = ", ".join(impl.plugin_name for impl in impls)
    print(f"sage: hook {hook} answered by [{called}]", file=sys.stderr)


def _is(*protocols: type) -> Callable[[str, object], str]:
    names = " or ".join(protocol.__name__ for protocol in protocols)

    def problem(name: str, target: object) -> str:
        # Protocols with methods only: on a class, the methods are attributes too, so isinstance holds for it.
        return "" if isinstance(target, type) and isinstance(target, protocols) else f"is not a class that is a {names}"

    return problem


def _backend(name: str, target: object) -> str:
    missing = [method for method in ("identify", "open") if not callable(getattr(target, method, None))]
    if missing or not isinstance(target, type):
        return f"is not a class that is a {Backend.__name__}" + (f": no {' and no '.join(missing)}" if missing else "")
    return ""


def _operator(name: str, target: object) -> str:
    info = getattr(target, MARK, None)
    if not isinstance(info, OperatorInfo):
        return "is not marked with @operator"
    return "" if info.name == name else f"is marked @operator({info.name!r}): the two names must be the same"


def _command(name: str, target: object) -> str:
    return "" if hasattr(target, "params") and hasattr(target, "invoke") else "is no click command"


_EXPECTED: dict[str, Callable[[str, object], str]] = {
    "operators": _operator,
    "schedulers": _is(Ordering, Scheduler),
    "selectors": _is(NodeFilter, NodeScorer, NodePicker),
    "backends": _backend,
    "triggers": _is(TriggerKind),
    "commands": _command,
}
