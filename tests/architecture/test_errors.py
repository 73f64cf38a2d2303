"""The error tree as drawn is the tree as built, and every message is tested somewhere."""

from __future__ import annotations

import inspect
import pickle
import re
from pathlib import Path

import pytest

from sage_core.common import errors
from sage_core.common.errors import SageError

ROOT = Path(__file__).parents[2]
CLASSES = [
    it
    for name, it in inspect.getmembers(errors, inspect.isclass)
    if issubclass(it, SageError) and not name.startswith("_")
]
TESTS = [
    file for file in (*ROOT.glob("tests/**/*.py"), *ROOT.glob("plugins/*/tests/**/*.py")) if file != Path(__file__)
]


def drawn() -> dict[str, str]:
    """Class name → parent's name, read from the tree in the module's docstring."""
    assert errors.__doc__ is not None
    parents, path = {}, ["SageError"]
    for indent, name in re.findall(r"^([│ ]*)[├└]── (\w+)", errors.__doc__, re.MULTILINE):
        depth = len(indent) // 4 + 1
        path[depth:] = [name]
        parents[name] = path[depth - 1]
    return parents


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    built = {
        it.__name__: next(base.__name__ for base in it.__mro__[1:] if base in CLASSES)
        for it in CLASSES
        if it is not SageError
    }
    assert drawn() == built


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_every_error_is_raised_in_some_test(error: type[SageError]) -> None:
    word = re.compile(rf"\b{error.__name__}\b")
    assert any(word.search(file.read_text(encoding="utf-8")) for file in TESTS), f"no test names {error.__name__}"


@pytest.mark.parametrize("error", [it for it in CLASSES if it is not SageError], ids=lambda error: error.__name__)
def test_every_error_survives_pickling(error: type[SageError]) -> None:
    """Errors cross process borders: fields travel in args, so the copy says the same."""
    parameters = [it for it in inspect.signature(error).parameters.values() if it.default is it.empty]
    values = {"int": 3, "float": 1.5, "Sequence[str]": ("a", "b"), "str": "text"}
    original = error(*(values[str(it.annotation)] for it in parameters))
    copy = pickle.loads(pickle.dumps(original))
    assert type(copy) is error
    assert str(copy) == str(original) != ""
