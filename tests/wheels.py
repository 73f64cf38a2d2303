"""Builds every distribution and tries the wheels where nothing else is: an empty environment, outside the checkout.

First the core alone, then the core with every plugin of tox.ini, which answers the question of the example.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.each_plugin import ROOT, check, plugins

#: What the core's wheel must hold beside its modules.
SHIPPED = ("sage_core/py.typed", "sage_core/migrations/env.py")
QUESTION = "How does SAGE survive a crashed worker?"


def build(folder: Path, into: Path, *kinds: str) -> Path:
    """Build one distribution in an isolated environment and return its wheel."""
    if check(f"build {folder.name}", ["uv", "build", "--quiet", *kinds, "--out-dir", str(into), str(folder)]):
        raise SystemExit(1)
    [wheel] = into.glob("*.whl")
    return wheel


def look_into(wheel: Path) -> list[str]:
    """Return what is wrong with a wheel's content."""
    names = zipfile.ZipFile(wheel).namelist()
    wrong = [f"{wheel.name} holds {name}" for name in names if "tests/" in name or name.endswith((".pyc", ".toml"))]
    if wheel.name.startswith("sage_native-"):
        wrong += [] if any(name.endswith((".so", ".pyd")) for name in names) else [f"{wheel.name} holds no kernel"]
    if wheel.name.startswith("sage_core-"):
        wrong += [f"{wheel.name} lacks {name}" for name in SHIPPED if name not in names]
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        wrong.append(f"{wheel.name} lacks its licence")
    return wrong


def environment(home: Path, requirements: Sequence[str]) -> Path:
    """Make an empty environment with these requirements and return its folder of programs."""
    into = ["uv", "pip", "install", "--quiet", "--python", str(home / "bin" / "python")]
    if check("environment", ["uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(home)]) or check(
        f"install {len(requirements)} wheels", [*into, *requirements]
    ):
        raise SystemExit(1)
    return home / "bin"


def call(work: Path, program: Path, *arguments: str) -> Any:
    """Run `sage … --json` away from the checkout and return what it prints."""
    scrubbed = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SAGE_", "VIRTUAL_ENV"))
    }
    scrubbed["SAGE_HOME"] = str(work / "home")
    command = [str(program), *arguments, "--json"]
    done = subprocess.run(command, cwd=work, env=scrubbed, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}\n{done.stdout}")
    return json.loads(done.stdout)


def require(holds: object, claim: str) -> None:
    """Stop with the claim where it does not hold."""
    if not holds:
        raise SystemExit(f"FAILED: {claim}")
    print(f"ok: {claim}", flush=True)


def main(work: Path) -> None:
    """Build, look, install, run."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    core = build(ROOT, work / "dist" / "sage-core")
    require(list((work / "dist" / "sage-core").glob("*.tar.gz")), "the core's wheel was built from its source archive")
    bundled = list(plugins())
    wheels = {each.name: build(each.folder, work / "dist" / each.name, "--wheel") for each in bundled}
    native = build(ROOT / "native", work / "dist" / "sage-native")
    wrong = [problem for wheel in (core, native, *wheels.values()) for problem in look_into(wheel)]
    require(not wrong, f"the wheels hold what they should {' '.join(wrong)}")

    alone = environment(work / "alone", [str(core)]) / "sage"
    require(
        [row["name"] for row in call(work, alone, "plugins", "list")] == ["builtins"], "the core works without plugins"
    )
    require(call(work, alone, "doctor")["ok"], "`sage doctor` finds no problem with the core alone")

    require(call(work, alone, "version")["kernels"] == "pure Python", "the core works without compiled kernels")

    pinned = [f"{each.name}{each.extras} @ {wheels[each.name].as_uri()}" for each in bundled]
    full = environment(work / "full", [f"sage-core @ {core.as_uri()}", str(native), *pinned]) / "sage"
    require(call(work, full, "version")["kernels"].startswith("sage-native "), "the compiled kernels are used")
    listed = {row["distribution"] for row in call(work, full, "plugins", "list") if not row["error"]}
    require(listed == {"", *wheels}, "every plugin is there")
    for model in call(work, full, "models", "list"):
        if model["from"] == "package" and not model["present"]:
            call(work, full, "models", "add", model["name"])
    require(call(work, full, "doctor")["ok"], "`sage doctor` finds no problem with every plugin")

    shutil.copytree(ROOT / "examples" / "ask-docs", work / "examples" / "ask-docs")
    shutil.copytree(ROOT / "docs", work / "docs")
    ask = ("run", "examples/ask-docs/workflow.toml", "--param", f"question={QUESTION}")
    result = call(work, full, *ask)
    require(result["status"] == "succeeded", "the example runs")
    require(result["outputs"]["answer"], "it answers")
    sources = result["outputs"]["sources"]
    require(sources and all(source["text"] and source["path"] for source in sources), "it quotes its sources")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
