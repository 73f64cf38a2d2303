"""Folders: SAGE_HOME, the project found from below, XDG, and nothing created in passing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_core.common.config import Config, load_config
from sage_core.common.paths import find_paths


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a project above it, and a user's own XDG folders."""
    monkeypatch.delenv("SAGE_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg-data"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "xdg-run"))
    folder = tmp_path / "work" / "deep"
    folder.mkdir(parents=True)
    return folder


def test_sage_home_moves_everything_and_nothing_is_created(sage_home: Path) -> None:
    paths = find_paths(Path("/somewhere"))
    everything = [paths.project, paths.data, paths.runtime, paths.database, paths.artifacts, paths.logs, paths.models]
    assert all(path.is_relative_to(sage_home) for path in everything)
    assert len(set(everything)) == len(everything)
    assert not sage_home.exists()


def test_sage_home_may_be_below_the_users_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SAGE_HOME", "~/elsewhere")
    assert find_paths(tmp_path).data == tmp_path / "elsewhere" / "data"


def test_a_folder_without_a_project_is_its_own(outside: Path, tmp_path: Path) -> None:
    paths = find_paths(outside)
    assert paths.project == outside / ".sage"
    assert paths.data == tmp_path / "xdg-data" / "sage"
    assert paths.runtime == tmp_path / "xdg-run" / "sage"
    assert not paths.project.exists()


@pytest.mark.parametrize("mark", ["sage.toml", ".sage"])
def test_the_project_is_found_from_below(outside: Path, mark: str) -> None:
    if mark == ".sage":
        (outside.parent / mark).mkdir()
    else:
        (outside.parent / mark).touch()
    assert find_paths(outside).project == outside.parent / ".sage"


def test_a_relative_start_is_taken_from_the_current_folder(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(outside)
    assert find_paths(Path()).project == outside / ".sage"


def test_a_folder_named_from_beside_it_is_not_below_where_one_stands(
    outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = outside.parent / "beside"
    beside.mkdir()
    (outside / "sage.toml").write_text("[workers]\ncount = 7\n")
    monkeypatch.chdir(outside)
    monkeypatch.delenv("SAGE_CONFIG", raising=False)
    assert find_paths(Path("../beside")).project == beside / ".sage"
    assert load_config(Path("../beside")) == Config()


def test_there_need_be_no_login_session(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert find_paths(outside).runtime.is_absolute()
