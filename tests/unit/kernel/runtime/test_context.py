from __future__ import annotations

import os
from pathlib import Path

import pytest

from sage_core.common.errors import CorruptArtifact
from sage_core.common.operators import Artifact
from sage_core.kernel.runtime.context import NewArtifact, Opened
from sage_core.platform.artifacts import ArtifactStore


class Book(Artifact):
    pass


def write(store: ArtifactStore, text: str) -> Book:
    made = NewArtifact(store)
    (made.path / "book.txt").write_text(text, encoding="utf-8")
    return made.publish(Book)


def test_an_artifact_is_named_by_its_content(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    one, same, other = write(store, "x"), write(store, "x"), write(store, "y")
    assert isinstance(one, Book)
    assert one.digest == same.digest != other.digest
    assert (one.path / "book.txt").read_text(encoding="utf-8") == "x"


def test_an_artifact_is_loaded_once_by_each_loader(tmp_path: Path) -> None:
    store, loads = ArtifactStore(tmp_path), []

    def load(folder: Path) -> list[str]:
        loads.append(folder)
        return os.listdir(folder)

    opened, book = Opened(store), write(store, "x")
    assert opened.get(book, load) is opened.get(write(store, "x"), load)
    assert opened.get(book, list_size) == 1
    assert len(loads) == 1


def list_size(folder: Path) -> int:
    return len(os.listdir(folder))


def test_a_damaged_artifact_is_not_loaded(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    book = write(store, "x")
    (book.path / "book.txt").write_text("changed", encoding="utf-8")
    with pytest.raises(CorruptArtifact):
        Opened(store).get(book, list_size)
