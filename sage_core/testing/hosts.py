"""Hosts and plugins in tests: a contract suite for a plugin's hooks, and real distributions in a temporary folder."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

from sage_core import builtins
from sage_core.builtins import default_host
from sage_core.common.host import Host
from sage_core.testing.subject import subject


class PluginContract:
    """What every plugin keeps: it loads beside the defaults, and every name it offers is what its hook says.

    Set ``plugin`` to the module or object with the hook implementations, and ``name`` to its entry point's name.
    """

    plugin: object
    name: str = "plugin"

    def _host(self) -> Host:
        plugin = subject(self, "plugin")
        return default_host({} if plugin is builtins else {self.name: plugin})

    def test_it_loads(self) -> None:
        errors = {info.name: info.error for info in self._host().plugins() if info.error}
        assert not errors, f"quarantined: {errors}"

    def test_every_entry_keeps_its_contract(self) -> None:
        problems = [str(problem) for problem in self._host().check()]
        assert not problems, "\n".join(problems)


def install_wheel(
    folder: Path,
    name: str,
    files: Mapping[str, str],
    *,
    entry_points: Mapping[str, str],
    version: str = "1.0",
) -> Path:
    """Build a wheel of `files` (by path) with entry points of the group ``sage`` and install it into `folder`.

    Installing a wheel of Python files alone is unpacking it, so neither a build backend nor an installer is needed.
    Returns the wheel. Put `folder` on ``sys.path`` or ``PYTHONPATH``.
    """
    normal = name.replace("-", "_")
    info = f"{normal}-{version}.dist-info"
    points = "".join(f"{point} = {target}\n" for point, target in entry_points.items())
    contents = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: sage\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[sage]\n{points}",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in contents.items())
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{normal}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in contents.items():
            archive.writestr(path, text)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return wheel


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
