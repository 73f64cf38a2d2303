"""Every list of bundled plugins names all of them, and each distribution can be installed alone beside the core."""

from __future__ import annotations

import ast
import configparser
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import sage_core

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(file.parent for file in ROOT.glob("plugins/*/pyproject.toml"))
NAMES = {folder.name for folder in FOLDERS}
PACKAGES = {name.replace("-", "_") for name in NAMES}
#: The bench stands above the plugins: it may import them, and lies in a folder of its own.
BENCH = "sage_bench"


#: Scripts that run in an environment of their own, made for them: what they import is no requirement of the plugin.
ISOLATED = {"plugins/sage-onnx/sage_onnx/export_job.py", "plugins/sage-vllm/sage_vllm/convert_job.py"}

#: Plugin → the only other one that it may require; docs/decisions/vllm-stands-on-openai.md.
STANDS_ON = {"sage-vllm": {"sage-openai"}}

#: Packages that several distributions fill → the one whose requirements bring all that is imported of it.
SHARED = {"opentelemetry": "opentelemetry_sdk"}


def relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def test_there_are_plugins() -> None:
    assert {"sage-llm", "sage-rag", "sage-onnx", "sage-local"} <= NAMES


def test_the_version_is_written_once_more_and_equal() -> None:
    assert project(ROOT)["project"]["version"] == sage_core.__version__


def test_the_linter_and_the_type_checker_see_every_plugin() -> None:
    tools = project(ROOT)["tool"]
    assert set(tools["importlinter"]["root_packages"]) == {"sage_core", BENCH} | PACKAGES
    assert {Path(path).name for path in tools["mypy"]["mypy_path"]} == NAMES | {"benchmarks", "native"}
    contracts = {contract["name"]: contract for contract in tools["importlinter"]["contracts"]}
    assert set(contracts["Plugins do not know one another"]["modules"]) == PACKAGES
    assert set(contracts["No cycles between siblings"]["ancestors"]) == {"sage_core", BENCH} | PACKAGES
    face = contracts["Plugins see the public face of the core and its test kit, nothing behind them"]
    assert set(face["source_modules"]) == PACKAGES | {BENCH}
    layers = {each.name for each in (ROOT / "sage_core").iterdir() if (each / "__init__.py").is_file()}
    assert {name.removeprefix("sage_core.") for name in face["forbidden_modules"]} == (layers | {"builtins"}) - {
        "testing"
    }


def test_tox_and_quickstart_install_every_plugin() -> None:
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "tox.ini", encoding="utf-8")
    assert set(re.findall(r"plugins/([\w-]+)", config["sage"]["all"])) == NAMES
    assert set(re.findall(r"plugins/([\w-]+)", config["sage"]["sources"])) == NAMES
    listed = re.search(r"^plugins=\((.*)\)$", (ROOT / "quickstart.sh").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed is not None
    assert set(re.findall(r"plugins/([\w-]+)", listed[1])) == NAMES


def test_the_compiled_kernels_need_nothing_and_are_needed_by_nothing() -> None:
    native = project(ROOT / "native")["project"]
    assert native["dependencies"] == []
    written = (ROOT / "native" / "sage_native" / "__init__.py").read_text(encoding="utf-8")
    assert f'__version__ = "{native["version"]}"' in written
    for folder in (ROOT, *FOLDERS):
        assert "sage-native" not in str(project(folder)["project"]), f"{folder.name} would want a compiler"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_plugin_is_a_distribution_of_its_own(folder: Path) -> None:
    table = project(folder)
    meta, package = table["project"], folder.name.replace("-", "_")
    assert meta["name"] == folder.name
    assert meta["license"] == "Apache-2.0"
    assert meta["requires-python"] == ">=3.11"
    assert (folder / "README.md").is_file()
    assert (folder / "LICENSE").is_file()
    assert (folder / package / "py.typed").is_file()
    assert table["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [package]
    targets = meta["entry-points"]["sage"]
    assert set(targets) == {folder.name.removeprefix("sage-")}
    assert {target.partition(".")[0] for target in targets.values()} == {package}
    assert list((folder / "tests").glob("test_*.py")), "a plugin brings its tests"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_plugin_requires_the_core_and_no_other_plugin(folder: Path) -> None:
    meta = project(folder)["project"]
    required = {requirement_name(each) for each in meta["dependencies"]}
    assert "sage-core" in required
    optional = {requirement_name(each) for extra in meta.get("optional-dependencies", {}).values() for each in extra}
    assert (required | optional) & (NAMES - {folder.name}) == STANDS_ON.get(folder.name, set())
    # PyTorch belongs into isolated environments only: no install of SAGE may pull it.
    assert not (required | optional) & {"torch", "transformers", "optimum", "vllm", "sentence-transformers"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_plugin_declares_what_it_imports(folder: Path) -> None:
    """A package that only another plugin's requirements bring would be missing where this plugin is installed alone."""
    meta = project(folder)["project"]
    requirements = [
        *meta["dependencies"],
        *(each for extra in meta.get("optional-dependencies", {}).values() for each in extra),
    ]
    declared = {requirement_name(each).replace("-", "_") for each in requirements} | {folder.name.replace("-", "_")}
    package = folder / folder.name.replace("-", "_")
    imported = {name for file in package.rglob("*.py") if relative(file) not in ISOLATED for name in imports(file)}
    shared = {name for name, distribution in SHARED.items() if distribution in declared}
    assert sorted(imported - declared - shared - set(sys.stdlib_module_names)) == []


def requirement_name(requirement: str) -> str:
    matched = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert matched is not None
    return re.sub(r"[-_.]+", "-", matched[0]).lower()


def imports(file: Path) -> set[str]:
    """Top-level names of the packages that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
    return found
