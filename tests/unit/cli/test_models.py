"""Tests of sage_core.cli.models, with a backend whose models are text files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from sage_core import Engine, Host, ModelError, ModelSpec, hookimpl
from sage_core.cli.app import App
from sage_core.cli.main import run
from sage_core.cli.models import describe_models


class TextBackend:
    """Keeps a model in one file; `default` comes with it, `lost` is a default whose weights are missing."""

    packaged = ("default", "lost")

    def identify(self, model: ModelSpec) -> str:
        if model.name == "default" and not model.source:
            return "built in"
        file = Path(model.source, "weights.txt")
        if not model.source or not file.is_file():
            raise ModelError(model.name, f"{file} is missing", f"sage models add {model.name}")
        return hashlib.sha256(file.read_bytes()).hexdigest()

    def open(self, model: ModelSpec) -> AbstractAsyncContextManager[Engine]:
        raise ModelError(model.name, "this backend runs nothing")

    def add(self, name: str, source: str, options: Mapping[str, object], target: Path) -> dict[str, object]:
        if source == "hf:no/where":
            raise ModelError(name, "there is no such model")
        (target / "weights.txt").write_text(f"{source} {options}", encoding="utf-8")
        return {"path": str(target / "weights.txt"), "bytes": 12, "settings": {"threads": 2}}


class Reader:
    """A backend that adds nothing."""

    def identify(self, model: ModelSpec) -> str:
        return "x"

    def open(self, model: ModelSpec) -> AbstractAsyncContextManager[Engine]:
        raise ModelError(model.name, "this backend runs nothing")


class Plugin:
    @hookimpl
    def sage_backends(self) -> dict[str, str]:
        return {"text": f"{__name__}:TextBackend", "reader": f"{__name__}:Reader"}


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SAGE_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    return App(Host({"texts": Plugin()}))


def add(app: App, *arguments: str) -> int:
    return run(["models", "add", *arguments, "--backend", "text"], app)


def test_packaged_models_are_listed_present_or_not(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "list", "--json"], app) == 0
    default, lost = json.loads(capsys.readouterr().out)
    assert (default["name"], default["from"], default["present"], default["identity"]) == (
        "default",
        "package",
        True,
        "built in",
    )
    assert (lost["name"], lost["present"]) == ("lost", False)
    assert "sage models add lost" in lost["problem"]
    assert run(["models", "list"], app) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1].split() == ["default", "text", "package", "yes"]
    assert "model 'lost': " in err


def test_an_added_model_is_described_and_found(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert add(app, "mine", "--source", "hf:some/model", "--quantize", "int8", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    folder = app.paths.models / "mine"
    assert shown["path"] == str(folder / "weights.txt")
    assert shown["bytes"] == 12
    assert (folder / "weights.txt").read_text(encoding="utf-8") == "hf:some/model {'quantize': 'int8'}"
    [row] = [row for row in describe_models(app) if row["name"] == "mine"]
    assert row == {
        "name": "mine",
        "backend": "text",
        "from": "added",
        "source": "hf:some/model",
        "present": True,
        "identity": shown["identity"],
        "problem": "",
    }


def test_sage_toml_goes_before_what_was_added(app: App, tmp_path: Path) -> None:
    assert add(app, "mine", "--source", "a") == 0
    (tmp_path / "sage.toml").write_text('[models.mine]\nbackend = "reader"\n[models.odd]\nbackend = "txet"\n', "utf-8")
    rows = {row["name"]: row for row in describe_models(App(app.host))}
    assert (rows["mine"]["from"], rows["mine"]["backend"]) == ("sage.toml", "reader")
    assert rows["odd"]["present"] is False
    assert "no backend is named 'txet'" in rows["odd"]["problem"]


def test_default_weights_need_no_source_and_no_backend(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "add", "lost"], app) == 0
    [row] = [row for row in describe_models(app) if row["name"] == "lost"]
    assert (row["from"], row["backend"], row["source"], row["present"]) == ("added", "text", "package:lost", True)
    capsys.readouterr()
    assert run(["models", "add", "unheard-of"], app) == 2
    assert (
        "add --source PATH or --source hf:ORG/NAME; names with default weights: default, lost"
        in capsys.readouterr().err
    )


def test_a_name_is_taken_once(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert add(app, "mine", "--source", "a") == 0
    assert add(app, "mine", "--source", "b") == 2
    assert "a model named 'mine' is there already" in capsys.readouterr().err
    assert add(app, "mine", "--source", "b", "--replace") == 0
    assert (app.paths.models / "mine" / "weights.txt").read_text(encoding="utf-8").startswith("b ")


def test_a_failed_addition_leaves_nothing(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert add(app, "mine", "--source", "hf:no/where") == 1
    assert "model 'mine': there is no such model" in capsys.readouterr().err
    assert list(app.paths.models.iterdir()) == []


def test_a_failed_replacement_keeps_the_model(app: App) -> None:
    assert add(app, "mine", "--source", "a") == 0
    assert add(app, "mine", "--source", "hf:no/where", "--replace") == 1
    assert [row["present"] for row in describe_models(app) if row["name"] == "mine"] == [True]


@pytest.mark.parametrize("name", ["../up", "", ".hidden", "a/b"])
def test_a_name_cannot_leave_the_folder(name: str, app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert add(app, name, "--source", "a") == 2
    assert "cannot name a model" in capsys.readouterr().err


def test_a_backend_that_adds_nothing_names_those_that_do(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "add", "mine", "--source", "a", "--backend", "reader"], app) == 1
    assert "the backend 'reader' adds no models\n  help: backends that do: text" in capsys.readouterr().err
    assert run(["models", "add", "mine", "--source", "a", "--backend", "txt"], app) == 2
    assert "No backend is named 'txt'. Did you mean 'text'?" in capsys.readouterr().err
