"""Tests of sage_core.cli.doctor."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from sage_core import Host, hookimpl
from sage_core.cli.app import App
from sage_core.cli.doctor import examine, examine_folder
from sage_core.cli.main import run


class Broken:
    @hookimpl
    def sage_backends(self) -> dict[str, str]:
        return {"ghost": "no_such_module:Ghost"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SAGE_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_a_sound_installation_has_no_problems(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"], App(Host({}))) == 0
    out = capsys.readouterr().out
    assert out.endswith("\nNo problems.\n")
    assert run(["doctor", "--json"], App(Host({}))) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert report["problems"] == []
    assert [folder["name"] for folder in report["paths"]] == ["project", "data", "runtime"]
    assert all(folder["writable"] for folder in report["paths"])
    assert [(port["name"], port["port"]) for port in report["ports"]] == [("gateway", 8700)]


def test_an_entry_that_cannot_be_imported_is_a_problem(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"], App(Host({"broken": Broken()}))) == 1
    out = capsys.readouterr().out
    assert "problem: plugin 'broken': backend 'ghost' (no_such_module:Ghost) cannot be imported" in out
    assert out.endswith("\n1 problem.\n")


def test_a_wrong_configuration_is_a_problem_and_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sage.toml").write_text("[stroe]\n", encoding="utf-8")
    report = examine(App(Host({})))
    assert len(report["problems"]) == 1
    assert "unknown key 'stroe'" in report["problems"][0]
    assert len(report["ports"]) == 1


def test_a_wrong_port_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "sage.toml").write_text("[ports]\ngateway = 70000\n", encoding="utf-8")
    report = examine(App(Host({})))
    assert report["ports"] == []
    assert "[ports] gateway: 70000 is not a port" in report["problems"][0]


def test_a_port_that_is_held_is_a_note_that_names_the_holder(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        (tmp_path / "sage.toml").write_text(f"[ports]\ngateway = {port}\n", encoding="utf-8")
        report = examine(App(Host({})))
    assert report["ok"]
    [note] = [note for note in report["notes"] if note.startswith(f"port {port} (gateway) is taken by process ")]
    assert "python" in note


def test_a_folder_below_a_file_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    assert examine_folder("data", file / "data")["writable"] is False
    monkeypatch.setenv("SAGE_HOME", str(file))
    report = examine(App(Host({})))
    assert len(report["problems"]) == 3
    assert "SAGE_HOME=FOLDER moves everything SAGE keeps" in report["problems"][0]


def test_a_folder_that_does_not_exist_is_judged_where_it_would_be(tmp_path: Path) -> None:
    seen = examine_folder("data", tmp_path / "a" / "b")
    assert seen["writable"] is True
    assert seen["free"] > 0


def test_a_store_on_a_network_file_system_is_noted(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("22 1 8:1 / / rw - nfs4 nas:/ rw\n", encoding="utf-8")
    [note] = [note for note in examine(App(Host({})), mounts)["notes"] if "nfs4" in note]
    assert note.startswith("sqlite:///")
    assert "SQLite is not safe on a network file system: keep the store on a local disk" in note
    (tmp_path / "sage.toml").write_text('[store]\nurl = "postgresql://me@host/sage"\n', encoding="utf-8")
    assert not [note for note in examine(App(Host({})), mounts)["notes"] if "nfs4" in note]
