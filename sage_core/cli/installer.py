"""Puts plugins into the running environment, and never asks the package index for a name nobody vouched for."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

import sage_core
from sage_core import __version__
from sage_core.common.errors import PluginError, UnknownName, UsageError

_NAME = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?P<extras>\[[A-Za-z0-9._, -]+\])?")
_EXTRAS = re.compile(r"(?P<path>.*?)(?P<extras>\[[A-Za-z0-9._, -]+\])?")


def canonical(name: str) -> str:
    """A distribution's name as packaging compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def find_bundled(package: Path | None = None) -> dict[str, Path]:
    """Plugins that lie beside the core in a checkout, by distribution name; none beside an installed wheel."""
    root = (package or Path(sage_core.__file__).parent).parent
    if not (root / "pyproject.toml").is_file():
        return {}
    return {read_name(file.parent): file.parent for file in sorted(root.glob("plugins/*/pyproject.toml"))}


def read_name(folder: Path) -> str:
    """The distribution name in a folder's pyproject.toml."""
    name: str = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"]
    return canonical(name)


class Installer:
    """Runs uv, or pip where there is no uv, on the environment of `python`.

    Args:
        bundled: folders of the plugins that may be named without saying where they are.
    """

    def __init__(self, bundled: dict[str, Path], python: str = sys.executable) -> None:
        self.bundled = bundled
        self._python = python

    def resolve(self, wanted: str, *, from_index: bool = False) -> list[str]:
        """Turn what the user typed into installer arguments; raises for a bare name that nothing vouches for."""
        if wanted.startswith("-"):
            raise UsageError(f"{wanted!r} is neither a name, a path nor a requirement", _WAYS)
        if "://" in wanted or "==" in wanted:
            return [wanted]
        split = _EXTRAS.fullmatch(wanted)
        path, extras = (split["path"], split["extras"] or "") if split else (wanted, "")
        if "/" in path or path.endswith(".whl") or path in (".", ".."):
            return [f"{_existing(path)}{extras}"]
        named = _NAME.fullmatch(wanted)
        if named is None:
            raise UsageError(f"{wanted!r} is neither a name, a path nor a requirement", _WAYS)
        if from_index:
            return [wanted]
        folder = self.bundled.get(canonical(named["name"]))
        if folder is None:
            raise UnknownName("bundled plugin", named["name"], tuple(self.bundled), _WAYS)
        # Editable, like the core beside it: one checkout, one state.
        return ["--editable", f"{folder}{extras}"]

    def install(self, arguments: Sequence[str]) -> None:
        """Install; the installer's output goes to stderr, and its failure is raised with its status."""
        with tempfile.TemporaryDirectory() as folder:
            # A plugin that asks for another core must fail here, not fetch one of that name from the index.
            constraint = Path(folder) / "constraint.txt"
            constraint.write_text(f"sage-core=={__version__}\n")
            self._pip("install", "--constraint", str(constraint), *arguments)

    def uninstall(self, distribution: str) -> None:
        """Remove one distribution."""
        self._pip("uninstall", *([] if self._uv() else ["--yes"]), distribution)

    def _pip(self, verb: str, *arguments: str) -> None:
        uv = self._uv()
        tool = [uv, "pip", verb, "--python", self._python] if uv else [self._python, "-m", "pip", verb]
        # Standard output is for results: what the installer says goes to descriptor 2.
        status = subprocess.run([*tool, *arguments], stdout=2, check=False).returncode
        if status:
            tool_name = "uv pip" if uv else "pip"
            raise PluginError(
                arguments[-1],
                f"`{tool_name} {verb}` ended with status {status}",
                "the installer's own message is above",
            )

    def _uv(self) -> str | None:
        beside = Path(self._python).with_name("uv")
        return str(beside) if beside.exists() else shutil.which("uv")


_WAYS = "Give ./PATH, a wheel, NAME==VERSION or a URL, or add --from-index to trust the package index with the name."


def _existing(path: str) -> Path:
    found = Path(path).expanduser().absolute()
    if not found.exists():
        raise UsageError(f"{path} does not exist", "name the folder of one plugin, or a wheel")
    if found.is_dir() and not (found / "pyproject.toml").is_file():
        raise UsageError(f"{path} holds no pyproject.toml", "name the folder of one plugin")
    return found
