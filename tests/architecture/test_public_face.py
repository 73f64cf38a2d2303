"""The public face of the core: sorted, resolvable, and made of the vocabulary and the way in from Python."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

import sage_core

ROOT = Path(__file__).parents[2]
COMMON = sorted((ROOT / "sage_core" / "common").glob("*.py"))
#: What the vocabulary may stand on; numpy only where types are checked.
FOUNDATION = set(sys.stdlib_module_names) | {"pluggy", "msgspec", "platformdirs", "sage_core"}


def type_checking_imports(file: Path) -> dict[str, str]:
    """Name → module of the re-exports that type checkers see."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    found = {}
    for node in (each for block in blocks for each in block.body):
        assert isinstance(node, ast.ImportFrom)
        assert node.module is not None
        for alias in node.names:
            assert alias.asname == alias.name, (
                f"{alias.name}: write `import {alias.name} as {alias.name}` to re-export it"
            )
            found[alias.name] = node.module
    return found


def test_public_names_are_sorted_and_resolve() -> None:
    assert sage_core.__all__ == sorted(set(sage_core.__all__))
    for name in sage_core.__all__:
        assert getattr(sage_core, name) is not None


def test_type_checkers_see_the_names_that_exist_and_from_the_same_place() -> None:
    seen = type_checking_imports(ROOT / "sage_core" / "__init__.py")
    assert sorted(seen) == sage_core.__all__
    for name, module in seen.items():
        assert getattr(importlib.import_module(module), name) is getattr(sage_core, name)


def test_the_public_face_is_the_vocabulary() -> None:
    """Policies and operators import from here, so this is what keeps them on the first layer.

    Beside it stands what a script needs to describe a workflow and run it.
    """
    names = type_checking_imports(ROOT / "sage_core" / "__init__.py")
    others = {name for name, module in names.items() if not module.startswith("sage_core.common.")}
    assert others == {"Value", "Workflow", "run"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'sage_core' has no attribute 'Hots'"):
        sage_core.Hots  # noqa: B018 - the access is the test


@pytest.mark.parametrize("file", COMMON, ids=lambda file: file.name)
def test_the_vocabulary_imports_its_foundation_only(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    annotations = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        allowed = FOUNDATION | ({"numpy"} if id(node) in annotations else set())
        assert {name.partition(".")[0] for name in names} <= allowed, f"{file.name}:{getattr(node, 'lineno', 0)}"
