"""The test kit: its public face, its fleet and its loop, and a suite as a plugin author runs it."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sage_core.testing
from sage_core import KeyedScheduler, Place, Work
from sage_core.builtins import Fifo
from sage_core.testing import FakeFleet, drive


def work(name: str, *, arrival: int = 0, cost: float = 1.0, tokens: int = 0) -> Work:
    return Work(id=name, lane="a", kind="embed", arrival=arrival, cost=cost, tokens_in=tokens)


def test_type_checkers_see_the_names_that_exist_and_from_the_same_place() -> None:
    tree = ast.parse(Path(sage_core.testing.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    assert sorted(seen) == sage_core.testing.__all__ == dir(sage_core.testing)
    for name, module in seen.items():
        assert getattr(importlib.import_module(module), name) is getattr(sage_core.testing, name)
    with pytest.raises(AttributeError, match=r"module 'sage_core\.testing' has no attribute 'FakeFeet'"):
        sage_core.testing.FakeFeet  # noqa: B018 - the access is the test


def test_a_fleet_gives_and_takes_credits() -> None:
    fleet = FakeFleet({"a": {"x": 1, "y": 2}}, tokens={"x": 10})
    first, second, third = work("1", cost=0.5), work("2"), work("3")
    assert [place.engine for place in fleet.open(work("big", tokens=11))] == ["y"]
    fleet.take(first, Place(engine="x"))
    assert fleet.pick(second) == Place(engine="y")
    fleet.take(second, Place(engine="y"))
    assert fleet.pick(third) == Place(engine="y", running=1, load=1.0)
    fleet.take(third, Place(engine="y"))
    assert not fleet.room("a")
    assert fleet.pick(work("4")) is None
    with pytest.raises(AssertionError, match="'4' was dispatched to 'x', which is not open to it"):
        fleet.take(work("4"), Place(engine="x"))
    assert fleet.give_back(first) == "x"
    assert fleet.room("a")
    assert not fleet.room("b")
    with pytest.raises(AssertionError, match="work '1' is in no engine"):
        fleet.give_back(first)


def test_the_loop_holds_an_engine_for_as_long_as_a_work_costs() -> None:
    works = [work("1"), work("2"), work("3", arrival=5)]
    done = drive(KeyedScheduler(Fifo()), FakeFleet({"a": {"x": 1}}), works, withdraw={"2": 500_000_000})
    assert (done.dispatched, done.withdrawn) == (["1", "3"], ["2"])
    assert [at for at, decision in done.decisions if type(decision).__name__ == "Dispatch"] == [0, 1_000_000_000]


def test_a_suite_passes_and_fails_as_an_author_sees_it(tmp_path: Path) -> None:
    (tmp_path / "test_policies.py").write_text(
        "from sage_core.testing import OrderingContract\n"
        "class Right:\n    def rank(self, work):\n        return work.cost\n"
        "class Wrong:\n    def rank(self, work):\n        return float('nan')\n"
        "class TestRight(OrderingContract):\n    make = Right\n"
        "class TestWrong(OrderingContract):\n    make = Wrong\n"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search(r"^3 failed, 3 passed", done.stdout, re.MULTILINE), done.stdout
    assert "AssertionError: rank of Work(" in done.stdout
