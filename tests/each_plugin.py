"""Checks every bundled plugin by itself: ``mypy`` in this environment, or ``alone`` in a fresh one with only the core.

The list of plugins, with the extras their tests need, is `[sage] all` in tox.ini.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Plugin(NamedTuple):
    """A bundled plugin as tox.ini lists it."""

    folder: Path
    extras: str

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def package(self) -> str:
        return self.name.replace("-", "_")


def sage_section() -> configparser.SectionProxy:
    """What tox.ini says about the distributions."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "tox.ini", encoding="utf-8")
    return config["sage"]


def plugins() -> Iterator[Plugin]:
    """Every plugin of tox.ini, in its order."""
    for line in sage_section()["all"].split("\n"):
        path, _, extras = line.removeprefix("-e ").partition("[")
        if path.startswith("plugins/"):
            yield Plugin(ROOT / path, f"[{extras}" if extras else "")


def check(title: str, command: Sequence[str | Path], *, cwd: Path = ROOT, **environment: str) -> str:
    """Run a command, show its time, and return an empty string or, where it failed, its title."""
    started = time.monotonic()
    status = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, check=False).returncode
    print(f"{title}: {'ok' if status == 0 else f'FAILED ({status})'} in {time.monotonic() - started:.1f} s", flush=True)
    return title if status else ""


def typed(plugin: Plugin) -> str:
    """Type-check a plugin's package and tests in one run, as one tree of its own."""
    trees = [plugin.folder / plugin.package, plugin.folder / "tests"]
    return check(f"mypy {plugin.name}", ["mypy", *(str(tree) for tree in trees if tree.is_dir())])


def alone(plugin: Plugin, work: Path) -> str:
    """Install a plugin beside the core and nothing else, hold what it offers against its contracts, run its tests."""
    home, bin = work / plugin.name, work / plugin.name / "bin"
    here = f"./{plugin.folder.relative_to(ROOT)}"
    into = ["uv", "pip", "install", "--quiet", "--python", str(bin / "python"), "--editable", "."]
    for each in stands_on(plugin):
        into += ["--editable", f"./{each.folder.relative_to(ROOT)}"]
    bare = (
        check(
            f"{plugin.name}: environment", ["uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(home)]
        )
        or check(f"{plugin.name}: install without extras", [*into, "--editable", here])
        or check(f"{plugin.name}: sage doctor", [bin / "sage", "doctor"], SAGE_HOME=str(work / "home"))
        or offered(plugin, bin)
    )
    groups = tomllib.loads((plugin.folder / "pyproject.toml").read_text(encoding="utf-8")).get("dependency-groups", {})
    own = ["--group", f"{here}/pyproject.toml:test"] if "test" in groups else []
    return (
        bare
        or check(f"{plugin.name}: test extras", [*into, "--editable", here + plugin.extras, "--group", "test", *own])
        or check(f"{plugin.name}: weights", [*into, "--no-deps", *sage_section()["weights"].split()])
        or check(f"{plugin.name}: tests", [bin / "python", "-m", "pytest", f"{here}/tests"])
    )


def stands_on(plugin: Plugin) -> list[Plugin]:
    """The bundled plugins that its distribution requires."""
    project = tomllib.loads((plugin.folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {re.split(r"[^A-Za-z0-9._-]", each, maxsplit=1)[0] for each in project.get("dependencies", [])}
    return [each for each in plugins() if each.name in required]


def offered(plugin: Plugin, bin: Path) -> str:
    """Say so when there are others than the plugin and what it requires beside the defaults, or one is quarantined."""
    listed = json.loads(
        subprocess.run([bin / "sage", "plugins", "list", "--json"], capture_output=True, check=True).stdout
    )
    found = {row["distribution"] for row in listed if not row["error"]} - {""}
    wanted = {plugin.name, *(each.name for each in stands_on(plugin))}
    return "" if found == wanted else f"{plugin.name}: `sage plugins list` shows {listed}"


def main(verb: str, *arguments: str) -> int:
    """Run one check over all plugins, or those named; report every failure at the end."""
    chosen = [each for each in plugins() if verb == "mypy" or each.name in arguments[1:] or not arguments[1:]]
    failures = [typed(each) if verb == "mypy" else alone(each, Path(arguments[0])) for each in chosen]
    failed = [failure for failure in failures if failure]
    print(
        f"{len(chosen) - len(failed)} of {len(chosen)} plugins passed",
        *(f"failed: {each}" for each in failed),
        sep="\n",
    )
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
