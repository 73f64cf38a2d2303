"""A workflow as written: the file, what it includes, and the chosen profile, merged, each key with its place."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any, NamedTuple

from sage_core.common.errors import InvalidWorkflow, UsageError
from sage_core.kernel.dataflow.diagnostics import Places, Problems, dotted, one_of, render, shown_path
from sage_core.kernel.dataflow.spans import Path
from sage_core.kernel.dataflow.syntax import describe, parse, read_text

#: Tables whose entries are definitions: one name may stand in one file only.
_DEFINITIONS = ("params", "models", "steps", "outputs")
#: What an included file keeps to itself.
_OWN = ("sage", "name", "description", "include", "profile")


class _Layer(NamedTuple):
    """One tree laid over those before it: a file, or a profile of a file."""

    file: str
    tree: Mapping[str, Any]
    prefix: Path = ()


class Document:
    """The merged tree and where each part of it was written."""

    def __init__(self, base: FilePath, layers: list[_Layer], texts: dict[str, str]) -> None:
        self.base = base
        #: The merged workflow; `check` reads it and does not change it.
        self.tree: dict[str, Any] = {}
        self._layers = layers
        self._texts = texts
        self._order = {file: index for index, file in enumerate(texts)}
        for layer in layers:
            _merge(self.tree, layer.tree)

    def locate(self, path: Path) -> tuple[str, Path]:
        """The file that has the last word on a path, and the path within it."""
        for end in range(len(path), -1, -1):
            for layer in reversed(self._layers):
                if _has(layer.tree, path[:end]):
                    return layer.file, layer.prefix + path
        # The main file comes first; a workflow that was built in Python has none.
        return next(iter(self._texts), ""), path

    def folder(self, path: Path) -> FilePath:
        """The folder of the file that a path is written in: relative paths start there."""
        file, _ = self.locate(path)
        return FilePath(file).parent if file else self.base

    def rebase(self, value: Any, path: Path) -> Any:
        """A path written in an included file, relative to the workflow's own folder; templates stay as they are."""
        folder = self.folder(path)
        if folder == self.base or not isinstance(value, str) or not value or value.startswith(("${", "/", "~")):
            return value
        return os.path.join(os.path.relpath(folder, self.base), value)

    def render(self, problems: Problems) -> list[str]:
        """The problems as text, in file order, the main file first."""
        if not self._texts:
            return [render(dotted(found.path) or "workflow", None, "", found.message, found.help) for found in problems]
        places = Places(self._texts)
        rows = []
        for found in problems:
            file, path = (found.file, found.path) if found.file else self.locate(found.path)
            span = places.span(file, path, found.part)
            message = found.message
            if found.first:
                message += f", first at {FilePath(found.first).name}:{places.span(found.first, path, 'key')}"
            rows.append(((self._order[file], span.line, span.column), places.render(file, span, message, found.help)))
        return [text for _, text in sorted(rows, key=lambda row: row[0])]

    def raise_if(self, problems: Problems) -> None:
        """Raise `InvalidWorkflow` with everything that was found, if anything was."""
        if problems:
            raise InvalidWorkflow(self.render(problems))


def from_tree(tree: Mapping[str, Any], base: FilePath) -> Document:
    """A document that was built in Python rather than read; its diagnostics name keys instead of lines."""
    return Document(base.absolute(), [_Layer("", tree)], {})


def read(path: FilePath, problems: Problems, profile: str | None = None) -> Document:
    """Read a file with its includes and lay the profile over it; raises on a file that is no TOML."""
    path = path.absolute()
    files = _Files(problems)
    files.add(path, ())
    layers = [
        _Layer(str(file), {key: value for key, value in tree.items() if file == path or key not in _OWN})
        for file, tree in files.trees
    ]
    profiles: dict[str, list[_Layer]] = {}
    for file, tree in files.trees:
        for name, overlay in _tables(tree.get("profile")):
            profiles.setdefault(name, []).append(_Layer(str(file), overlay, ("profile", name)))
            for key in ("sage", "include", "profile"):
                if key in overlay:
                    problems.add(("profile", name, key), f"a profile cannot change {key!r}", part="key", file=str(file))
    if profile is not None and profile not in profiles:
        raise UsageError(f"no profile is named {profile!r}", one_of(profile, sorted(profiles), "profiles"))
    layers += profiles.get(profile or "", [])
    # The main file first, whatever it includes: diagnostics follow this order.
    texts = {str(path): files.texts[str(path)], **files.texts}
    return Document(path.parent, layers, texts)


class _Files:
    """The main file and all that it includes, each once, included ones before those that include them."""

    def __init__(self, problems: Problems) -> None:
        self.trees: list[tuple[FilePath, dict[str, Any]]] = []
        self.texts: dict[str, str] = {}
        self._problems = problems
        self._defined: dict[Path, str] = {}

    def add(self, path: FilePath, chain: tuple[FilePath, ...]) -> None:
        file = str(path)
        self.texts[file] = read_text(path)
        tree = parse(file, self.texts[file])
        named = tree.get("include", [])
        if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
            self._problems.add(("include",), "include is a list of files", 'write include = ["other.toml"]', file=file)
            named = []
        for index, name in enumerate(named):
            self._include((path.parent / name).resolve(), ("include", index), (*chain, path), name)
        for section in _DEFINITIONS:
            for name in tree.get(section, {}) if isinstance(tree.get(section), dict) else ():
                here: Path = (section, name)
                first = self._defined.setdefault(here, file)
                if first != file:
                    self._problems.add(
                        here,
                        f"{describe(here)} is defined twice",
                        "rename one of them; [profile.NAME] is the way to change a definition",
                        part="key",
                        file=file,
                        first=first,
                    )
        self.trees.append((path, tree))

    def _include(self, path: FilePath, at: Path, chain: tuple[FilePath, ...], name: str) -> None:
        file = str(chain[-1])
        resolved = [each.resolve() for each in chain]
        if path in resolved:
            names = [each.name for each in chain[resolved.index(path) :]]
            self._problems.add(at, f"the files include each other: {' → '.join([*names, path.name])}", file=file)
        elif str(path) in self.texts:
            return
        elif not path.is_file():
            help = f"it is looked for in {shown_path(chain[-1].parent)}"
            self._problems.add(at, f"included file {name!r} does not exist", help, file=file)
        else:
            self.add(path, chain)


def _tables(value: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, dict):
        yield from ((name, entry) for name, entry in value.items() if isinstance(entry, dict))


def _merge(under: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(under.get(key), dict):
            _merge(under[key], value)
        else:
            under[key] = copy.deepcopy(value)


def _has(tree: object, path: Path) -> bool:
    for part in path:
        known = range(len(tree)) if isinstance(tree, list) else tree if isinstance(tree, Mapping) else ()
        if part not in known:
            return False
        tree = tree[part]  # type: ignore[index]
    return True
