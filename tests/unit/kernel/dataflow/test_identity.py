from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_core import operator
from sage_core.common.errors import BadSignature
from sage_core.kernel.dataflow.identity import code_key

OPERATORS = """
from sage_core import operator
from idpkg.sub.helpers import shout

@operator("t.loud")
def loud(text: str) -> str:
    return shout(text)

@operator("t.other")
def other(text: str) -> str:
    return text
"""


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    """A package `idpkg` whose operators call a helper in a sub-package."""
    folder = tmp_path / "idpkg"
    (folder / "sub").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "operators.py").write_text(OPERATORS)
    (folder / "sub" / "__init__.py").write_text("")
    (folder / "sub" / "helpers.py").write_text("def shout(text): return text.upper()\n")
    sys.path.insert(0, str(tmp_path))
    importlib.invalidate_caches()
    yield folder
    sys.path.remove(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] in ("idpkg", "idfile")]:
        del sys.modules[name]


def loud() -> Any:
    return importlib.import_module("idpkg.operators").loud


def record(package: Path, name: str, text: str) -> None:
    info = package.parent / name
    info.mkdir(exist_ok=True)
    (info / "RECORD").write_text(text)


def test_a_version_is_the_whole_key() -> None:
    @operator("t.fixed", version="3")
    def fixed(text: str) -> str:
        return text

    assert code_key(fixed) == "version:3"


def test_an_edited_helper_anywhere_in_the_package_changes_the_key(package: Path) -> None:
    before = code_key(loud())
    assert before.startswith("source:idpkg:")
    assert code_key(loud()) == before
    (package / "sub" / "helpers.py").write_text("def shout(text): return text.upper() + '!'\n")
    edited = code_key(loud())
    assert edited != before
    (package / "sub" / "kernel.so").write_bytes(b"\x7fELF")
    assert code_key(loud()) not in (before, edited)


def test_time_stamps_byte_code_and_other_files_do_not_change_the_key(package: Path) -> None:
    before = code_key(loud())
    (package / "operators.py").touch()
    (package / "notes.txt").write_text("x")
    (package / "__pycache__").mkdir(exist_ok=True)
    (package / "__pycache__" / "stale.py").write_text("x")
    assert code_key(loud()) == before


def test_a_moved_file_changes_the_key(package: Path) -> None:
    before = code_key(loud())
    (package / "sub" / "helpers.py").rename(package / "sub" / "renamed.py")
    assert code_key(loud()) != before


def test_operators_of_one_package_share_what_was_read(package: Path) -> None:
    seen: dict[str, str] = {}
    first = code_key(loud(), seen)
    (package / "operators.py").unlink()
    assert code_key(importlib.import_module("idpkg.operators").other, seen) == first
    assert list(seen.values()) == [first]


def test_an_installed_wheel_goes_by_its_record(package: Path) -> None:
    files = "idpkg/__init__.py,sha256=a,1\nidpkg/operators.py,sha256=b,2\n"
    record(package, "aaa-1.0.dist-info", "aaa/__init__.py,sha256=x,1\n")
    record(package, "the_plugin-2.1.dist-info", files)
    before = code_key(loud())
    assert before.startswith("wheel:the_plugin-2.1:")
    record(package, "the_plugin-2.1.dist-info", files + "idpkg/__pycache__/a.pyc,,\n../../bin/tool,sha256=y,1\n")
    assert code_key(loud()) == before
    record(package, "the_plugin-2.1.dist-info", files.replace("sha256=b", "sha256=c"))
    assert code_key(loud()) != before


def test_a_distribution_that_lists_no_file_of_the_package_is_not_its_wheel(package: Path) -> None:
    record(package, "idpkg-1.0.dist-info", "__editable__.idpkg.pth,sha256=a,1\n")
    assert code_key(loud()).startswith("source:")


def test_a_module_of_one_file_goes_by_that_file(package: Path) -> None:
    file = package.parent / "idfile.py"
    file.write_text(OPERATORS.replace("from idpkg.sub.helpers import shout", "shout = str.upper"))
    target = importlib.import_module("idfile").loud
    before = code_key(target)
    assert before.startswith("file:")
    (package.parent / "other.py").write_text("")
    assert code_key(target) == before
    file.write_text(file.read_text() + "\n")
    assert code_key(target) != before


PRINT = "\nfrom sage_core.kernel.dataflow.identity import code_key\nprint(code_key(loud))\n"


def test_a_script_goes_by_its_file_and_a_module_run_with_m_by_its_package(package: Path) -> None:
    script = package.parent / "script.py"
    script.write_text(OPERATORS + PRINT)
    (package / "tool.py").write_text(OPERATORS + PRINT)

    def run(*args: str) -> str:
        return subprocess.run(
            [sys.executable, *args], cwd=package.parent, capture_output=True, text=True, check=True, timeout=50
        ).stdout

    assert run("script.py").startswith("file:")
    assert run("-m", "idpkg.tool").startswith("source:idpkg:")


def test_code_without_a_file_asks_for_a_version() -> None:
    @operator("t.typed")
    def typed(text: str) -> str:
        return text

    typed.__module__ = "nowhere"
    with pytest.raises(BadSignature, match=r"has no file.*\n.*set version="):
        code_key(typed)
