"""Lazy tables from public name to plugin object: known without importing, imported when first used."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping

from sage_core.common.errors import DuplicateName, PluginError, UnknownName


class Registry(Mapping[str, object]):
    """The names of one kind (operators, backends, …) offered by all plugins; ``registry[name]`` imports the object."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._targets: dict[str, tuple[str, str]] = {}
        self._loaded: dict[str, object] = {}
        self.duplicates: list[DuplicateName] = []
        #: Why a name may be missing, added to the error that says so.
        self.hint = ""

    def add(self, plugin: str, entries: Mapping[str, str]) -> None:
        """Take a plugin's entries; a name that is taken stays with the first plugin and is reported by `Host.check`."""
        for name, target in entries.items():
            if name in self._targets:
                self.duplicates.append(DuplicateName(self.kind, name, self._targets[name][0], plugin))
            else:
                self._targets[name] = (plugin, target)

    def origin(self, name: str) -> str:
        """Name of the plugin that offers `name`."""
        return self._target(name)[0]

    def target(self, name: str) -> str:
        """The ``module:attribute`` behind `name`."""
        return self._target(name)[1]

    def __getitem__(self, name: str) -> object:
        if name not in self._loaded:
            plugin, target = self._target(name)
            module, _, attribute = target.partition(":")
            try:
                self._loaded[name] = getattr(importlib.import_module(module), attribute)
            except (Exception, SystemExit) as error:
                raise PluginError(
                    plugin, f"{self.kind} {name!r} ({target}) cannot be imported: {type(error).__name__}: {error}"
                ) from error
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._targets))

    def __len__(self) -> int:
        return len(self._targets)

    def __contains__(self, name: object) -> bool:
        return name in self._targets

    def _target(self, name: str) -> tuple[str, str]:
        try:
            return self._targets[name]
        except KeyError:
            raise UnknownName(self.kind, name, tuple(self), self.hint) from None
