"""The reference pages: hooks under their exact signatures, nouns in the glossary, the tutorial as it is written."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import sage_core
from sage_core.common.hooks import known_hooks

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def signature(name: str) -> str:
    return f"{name}{inspect.signature(known_hooks()[name])}".replace("'", "")


def sections(page: str) -> dict[str, str]:
    """Text below each second-level heading."""
    parts = re.split(r"^## (.+)$", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("hook", sorted(known_hooks()))
def test_every_hook_has_a_section_headed_by_its_signature(hook: str) -> None:
    text = sections("hooks.md")[f"`{signature(hook)}`"]
    assert f"def {hook}(" in text, "no example"
    assert "sed by `sage-" in text or "sed by the defaults" in text or "No bundled plugin" in text
    for parameter in inspect.signature(known_hooks()[hook]).parameters:
        assert f"- `{parameter}`: " in text


def test_no_section_describes_a_hook_that_is_not_there() -> None:
    assert set(sections("hooks.md")) == {f"`{signature(hook)}`" for hook in known_hooks()}


@pytest.mark.parametrize("plugin", sorted(path.name for path in (ROOT / "plugins").iterdir() if path.is_dir()))
def test_what_a_bundled_plugin_uses_is_said_at_the_hook(plugin: str) -> None:
    package = (ROOT / "plugins" / plugin / plugin.replace("-", "_") / "__init__.py").read_text(encoding="utf-8")
    used = [hook for hook in known_hooks() if f"def {hook}(" in package]
    assert used
    for hook in used:
        assert f"`{plugin}`" in sections("hooks.md")[f"`{signature(hook)}`"]


def public_classes(module: str) -> list[str]:
    tree = ast.parse((ROOT / "sage_core" / "common" / f"{module}.py").read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]


@pytest.mark.parametrize("noun", [*public_classes("records"), *public_classes("contracts")])
def test_every_record_and_contract_is_in_the_glossary(noun: str) -> None:
    assert re.search(rf"^- `{noun}`( \(sage_core\.[\w.]+\))?: \S", (DOCS / "glossary.md").read_text(), re.MULTILINE)


def test_the_glossary_names_no_class_that_is_not_there() -> None:
    entries = re.findall(r"^- `(\w+)`(?: \(([\w.]+)\))?: ", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    assert len(entries) == len({name for name, _ in entries})
    for name, module in entries:
        assert hasattr(sys.modules[module] if module else sage_core, name), f"{name} is not in {module or 'sage_core'}"


def listings(page: str) -> dict[str, str]:
    """Files that a page lists: a line with the path in backticks and a colon, then a fenced block."""
    return dict(re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The tutorial's plugin, built by its own build backend and installed beside its sources; with an environment."""
    root = tmp_path_factory.mktemp("tutorial")
    files = listings("plugins.md")
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    backend = tomllib.loads(files["pyproject.toml"])["build-system"]["build-backend"]
    build = f"import {backend} as backend; print(backend.build_wheel('dist'))"
    built = subprocess.run([sys.executable, "-c", build], cwd=root, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    # Installing a wheel of Python files alone is unpacking it.
    with zipfile.ZipFile(root / "dist" / built.stdout.split()[-1]) as wheel:
        wheel.extractall(root / "site")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SAGE_", "PYTEST_"))}
    return root, {**inherited, "PYTHONPATH": str(root / "site"), "SAGE_HOME": str(root / "home")}


def run(tutorial: tuple[Path, dict[str, str]], *command: str) -> str:
    root, environ = tutorial
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=root, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_tutorials_tests_pass(tutorial: tuple[Path, dict[str, str]]) -> None:
    output = run(tutorial, "pytest", "-q", "--import-mode=importlib", "tests")
    assert re.search(r"^(\d+) passed", output, re.MULTILINE)
    assert int(output.split(" passed")[0].split()[-1]) >= 8


def test_sage_lists_the_tutorials_operator(tutorial: tuple[Path, dict[str, str]]) -> None:
    assert "text.shout" in run(tutorial, "sage_core.cli", "plugins", "info", "shout")


def test_the_tutorials_workflow_is_valid(tutorial: tuple[Path, dict[str, str]]) -> None:
    run(tutorial, "sage_core.cli", "check", "shout.toml")
