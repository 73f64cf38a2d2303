"""Installed plugins: real distributions, sound and broken, found in a fixed order and chosen by SAGE_PLUGINS."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_core import UnknownName
from sage_core.builtins import default_host
from sage_core.testing import install_wheel

GOOD = """
from sage_core import hookimpl

@hookimpl
def sage_schedulers():
    return {"installed-order": "sage_test_good.policy:Newest"}
"""
POLICY = """
class Newest:
    def rank(self, work):
        return -work.arrival
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sage_home: Path) -> Iterator[Path]:
    """A folder on ``sys.path`` with one sound and three broken distributions, installed from wheels."""
    folder = tmp_path / "site"
    install_wheel(
        folder,
        "sage-test-good",
        {"sage_test_good/__init__.py": GOOD, "sage_test_good/policy.py": POLICY},
        entry_points={"test-good": "sage_test_good"},
        version="2.5",
    )
    install_wheel(
        folder,
        "sage-test-import",
        {"sage_test_import/__init__.py": "import a_library_that_is_not_there\n"},
        entry_points={"test-import": "sage_test_import"},
    )
    install_wheel(
        folder,
        "sage-test-exit",
        {"sage_test_exit/__init__.py": "raise SystemExit('wrong machine')\n"},
        entry_points={"test-exit": "sage_test_exit"},
    )
    install_wheel(folder, "sage-test-gone", {}, entry_points={"test-gone": "sage_test_gone.plugin:PLUGIN"})
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in set(sys.modules) - before:
        if name.startswith("sage_test_"):
            del sys.modules[name]


def test_installed_plugins_load_and_broken_ones_are_quarantined(site: Path) -> None:
    host = default_host()
    found = {info.name: info for info in host.plugins() if info.name.startswith("test-")}
    good = found["test-good"]
    assert (good.version, good.distribution, good.hooks) == ("2.5", "sage-test-good", ("sage_schedulers",))
    assert {name: info.error for name, info in found.items()} == {
        "test-good": "",
        "test-import": "ModuleNotFoundError: No module named 'a_library_that_is_not_there'",
        "test-exit": "SystemExit: wrong machine",
        "test-gone": "ModuleNotFoundError: No module named 'sage_test_gone'",
    }
    assert "sage_test_good.policy" not in sys.modules
    assert hasattr(host.schedulers["installed-order"], "rank")


def test_the_order_of_plugins_does_not_depend_on_the_path(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [info.name for info in default_host().plugins()]
    monkeypatch.setattr(sys, "path", sys.path[::-1])
    assert [info.name for info in default_host().plugins()] == names == sorted(names)


def test_an_empty_sage_plugins_loads_none(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_PLUGINS", "")
    host = default_host()
    assert [info.name for info in host.plugins()] == ["builtins"]
    assert host.check() == []


def test_sage_plugins_chooses_and_says_what_it_left_out(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_PLUGINS", " test-good ,")
    host = default_host()
    assert [info.name for info in host.plugins()] == ["builtins", "test-good"]
    with pytest.raises(UnknownName, match=r"SAGE_PLUGINS leaves out: .*test-gone.*\.$"):
        host.schedulers["other"]


def test_a_slip_in_sage_plugins_is_shown_as_a_plugin_that_is_not_there(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_PLUGINS", "test-good,test-god")
    host = default_host()
    (problem,) = host.check()
    assert str(problem).startswith(
        "plugin 'test-god': named in SAGE_PLUGINS, but not installed. Did you mean 'test-good'? Installed: "
    )
    assert list(host.schedulers) == ["fifo", "installed-order", "priority"]


def test_two_distributions_with_one_plugin_name_are_reported(site: Path) -> None:
    install_wheel(
        site, "sage-test-twin", {"sage_test_twin/__init__.py": GOOD}, entry_points={"test-good": "sage_test_twin"}
    )
    importlib.invalidate_caches()
    problems = [str(problem) for problem in default_host().check()]
    assert (
        "The plugin 'test-good' is offered by both 'sage-test-good' and 'sage-test-twin'. Uninstall one of them."
        in problems
    )


def test_one_distribution_twice_on_the_path_is_one_plugin(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_wheel(
        tmp_path / "old",
        "sage-test-good",
        {"sage_test_good/__init__.py": GOOD},
        entry_points={"test-good": "sage_test_good"},
        version="1.0",
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "old")])
    host = default_host()
    assert [info.version for info in host.plugins() if info.name == "test-good"] == ["2.5"]
    assert not any("offered by both" in str(problem) for problem in host.check())


def test_metadata_that_cannot_be_read_is_passed_over(site: Path) -> None:
    broken = site / "sage_test_dust-1.0.dist-info"
    broken.mkdir()
    (broken / "entry_points.txt").write_bytes(b"[sage]\n\xff\xfe = x\n")
    importlib.invalidate_caches()
    assert "test-good" in [info.name for info in default_host().plugins()]


def test_a_distribution_without_metadata_is_quarantined(site: Path) -> None:
    bare = site / "sage_test_bare-1.0.dist-info"
    bare.mkdir()
    (bare / "entry_points.txt").write_text("[sage]\ntest-bare = sage_test_bare\n")
    importlib.invalidate_caches()
    (info,) = (info for info in default_host().plugins() if info.name == "test-bare")
    assert (info.distribution, info.version) == ("unnamed distribution", "")
    assert info.error == "ModuleNotFoundError: No module named 'sage_test_bare'"


def test_entry_points_that_cannot_be_parsed_are_named(site: Path) -> None:
    install_wheel(site, "sage-test-torn", {}, entry_points={"test-torn": "sage_test_torn"})
    (site / "sage_test_torn-1.0.dist-info" / "entry_points.txt").write_text("[sage]\ntest-torn\n")
    importlib.invalidate_caches()
    (info,) = (info for info in default_host().plugins() if info.name == "sage-test-torn")
    assert info.error.startswith("entry_points.txt cannot be read: ")
    assert info.error.endswith("help: reinstall sage-test-torn")
