"""Where models come from, and which place wins."""

from __future__ import annotations

from pathlib import Path

import pytest

import sage_core.testing.engines as fake
from sage_core.common.added import write_model
from sage_core.common.errors import ConfigError, ModelError
from sage_core.common.host import Host
from sage_core.common.paths import Paths
from sage_core.common.records import ModelSpec
from sage_core.kernel.control_plane.engines import identify
from sage_core.kernel.control_plane.model_specs import resolve_models


def paths(folder: Path) -> Paths:
    return Paths(project=folder / "project", data=folder / "data", runtime=folder / "run")


def test_the_workflow_goes_first_then_the_config_then_added_models(tmp_path: Path) -> None:
    folder = paths(tmp_path).models / "mini"
    folder.mkdir(parents=True)
    write_model(folder, "onnx", {"pooling": "mean", "threads": 1}, {"source": "hf:a/b"})
    graph = {"mini": ModelSpec(name="mini", backend="onnx", options={"threads": 4})}
    config: dict[str, dict[str, object]] = {
        "mini": {"backend": "onnx", "threads": 2, "normalize": True},
        "chat": {"backend": "local", "source": "x"},
    }
    found = resolve_models(graph, config, paths(tmp_path))
    assert found == {
        "mini": ModelSpec(
            name="mini",
            backend="onnx",
            source=str(folder / "."),
            options={"pooling": "mean", "threads": 4, "normalize": True},
        ),
        "chat": ModelSpec(name="chat", backend="local", source="x"),
    }


def test_a_place_with_another_backend_fills_in_nothing(tmp_path: Path) -> None:
    graph = {"m": ModelSpec(name="m", backend="onnx")}
    found = resolve_models(graph, {"m": {"backend": "openai", "source": "http://x", "key": 1}}, paths(tmp_path))
    assert found["m"] == ModelSpec(name="m", backend="onnx")


def test_a_model_without_a_backend_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[models\.m\]: it names no backend"):
        resolve_models({}, {"m": {"source": "x"}}, paths(tmp_path))


def test_a_value_of_the_wrong_type_names_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sage\.toml \[models\.m\]: source must be a string"):
        resolve_models({}, {"m": {"backend": "onnx", "source": 3}}, paths(tmp_path))


def test_identify_asks_the_backend_and_opens_nothing() -> None:
    host = Host({"fake": fake})
    spec = ModelSpec(name="m", backend="fake", options={"broken": "cannot be opened"})
    assert identify(spec, host).startswith("fake:")
    with pytest.raises(ModelError, match="its weights are not there"):
        identify(ModelSpec(name="m", backend="fake", source="missing"), host)
