"""Tests of sage_core.cli.installer: what is resolved, and that nothing is guessed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sage_core import PluginError, UnknownName, UsageError
from sage_core.cli.installer import Installer, canonical, find_bundled, read_name

ROOT = Path(__file__).parents[3]


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    folder = tmp_path / "sage-demo"
    folder.mkdir()
    (folder / "pyproject.toml").write_text('[project]\nname = "Sage_Demo"\n', encoding="utf-8")
    return folder


def test_names_compare_as_packaging_compares_them() -> None:
    assert canonical("Sage_Demo.X") == "sage-demo-x"


def test_bundled_plugins_are_those_of_the_checkout(plugin: Path, tmp_path: Path) -> None:
    assert set(find_bundled()) == {folder.parent.name for folder in ROOT.glob("plugins/*/pyproject.toml")}
    assert find_bundled(tmp_path / "site-packages" / "sage_core") == {}
    assert read_name(plugin) == "sage-demo"


def test_a_bundled_name_means_its_folder(plugin: Path) -> None:
    installer = Installer({"sage-demo": plugin})
    assert installer.resolve("sage-demo") == ["--editable", str(plugin)]
    assert installer.resolve("Sage_demo[a, b]") == ["--editable", f"{plugin}[a, b]"]


@pytest.mark.parametrize("wanted", ["sage-other==1.2", "https://host/a.whl", "sage-other @ git+ssh://host/x"])
def test_an_explicit_requirement_is_passed_on(wanted: str) -> None:
    assert Installer({}).resolve(wanted) == [wanted]


def test_a_path_is_made_absolute(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(plugin.parent)
    assert Installer({}).resolve("./sage-demo[x]") == [f"{plugin}[x]"]
    wheel = plugin / "sage_demo-1-py3-none-any.whl"
    wheel.touch()
    monkeypatch.chdir(plugin)
    assert Installer({}).resolve(wheel.name) == [str(wheel)]
    assert Installer({}).resolve(".") == [str(plugin)]


def test_a_path_that_is_no_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\./nothing does not exist\n  help: name the folder of one plugin"):
        Installer({}).resolve("./nothing")
    with pytest.raises(UsageError, match=r"holds no pyproject\.toml\n  help: name the folder of one plugin"):
        Installer({}).resolve(f"{tmp_path}/")


def test_a_bare_name_is_never_guessed(plugin: Path) -> None:
    installer = Installer({"sage-demo": plugin})
    with pytest.raises(UnknownName) as raised:
        installer.resolve("sage-dmeo")
    assert str(raised.value).startswith("No bundled plugin is named 'sage-dmeo'. Did you mean 'sage-demo'?")
    assert "add --from-index to trust the package index with the name" in str(raised.value)
    assert installer.resolve("sage-dmeo", from_index=True) == ["sage-dmeo"]


@pytest.mark.parametrize("wanted", ["--upgrade", "", "a b", "--index-url=https://host/simple"])
def test_what_is_no_name_is_refused(wanted: str) -> None:
    with pytest.raises(UsageError, match="is neither a name, a path nor a requirement"):
        Installer({}).resolve(wanted, from_index=True)


def test_a_failed_installation_is_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.whl"
    broken.write_bytes(b"not a wheel")
    with pytest.raises(PluginError, match=r"pip install` ended with status \d+\n  help: the installer's own message"):
        Installer({}, sys.executable).install([str(broken)])
    out, err = capfd.readouterr()
    assert out == ""
    assert "broken" in err
