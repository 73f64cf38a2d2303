"""Tests of sage_core.common.added."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_core import ConfigError, Paths
from sage_core.common.added import added_models, read_origin, write_model


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(project=tmp_path / "p", data=tmp_path / "d", runtime=tmp_path / "r")


def test_nothing_is_added_where_there_is_no_folder(paths: Paths) -> None:
    assert added_models(paths) == {}


def test_what_is_written_is_read_back(paths: Paths) -> None:
    folder = paths.models / "mini"
    folder.mkdir(parents=True)
    write_model(
        folder, "onnx", {"threads": 2, "pooling": 'c"l\ns é', "absent": None}, {"source": "hf:a/b", "x": [True, 1.5]}
    )
    (paths.models / "half-made").mkdir()
    assert added_models(paths) == {
        "mini": {"backend": "onnx", "source": str(folder), "threads": 2, "pooling": 'c"l\ns é'}
    }
    assert read_origin(paths, "mini") == {"source": "hf:a/b", "x": [True, 1.5]}


def test_a_folder_can_be_moved_and_a_hub_name_stays(paths: Paths) -> None:
    folder = paths.models / "a"
    folder.mkdir(parents=True)
    write_model(folder, "onnx", {}, {})
    folder.rename(paths.models / "b")
    (paths.models / "c").mkdir()
    (paths.models / "c" / "model.toml").write_text('backend = "onnx"\nsource = "hf:o/n"\n', encoding="utf-8")
    assert {name: table["source"] for name, table in added_models(paths).items()} == {
        "b": str(paths.models / "b"),
        "c": "hf:o/n",
    }


def test_a_damaged_description_says_what_to_do(paths: Paths) -> None:
    folder = paths.models / "a"
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text("backend = ", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"model\.toml: cannot be read: .*\n  help: remove the folder and add"):
        added_models(paths)
