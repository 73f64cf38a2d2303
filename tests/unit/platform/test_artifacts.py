from __future__ import annotations

import errno
import os
import re
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sage_core.common.errors import CorruptArtifact, StoreError
from sage_core.platform.artifacts import ArtifactStore, digest_file, digest_folder


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def published(store: ArtifactStore) -> list[str]:
    return sorted(str(path.relative_to(store.root)) for path in store.root.glob("??/*"))


def leftovers(store: ArtifactStore) -> list[Path]:
    return list((store.root / "tmp").iterdir())


def put(store: ArtifactStore, body: bytes, suffix: str = "") -> str:
    tmp = store.new_file()
    tmp.write_bytes(body)
    return store.publish_file(tmp, suffix=suffix)


def put_folder(store: ArtifactStore, **files: str) -> str:
    with store.new_dir() as folder:
        for name, text in files.items():
            path = folder.path / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return folder.seal()


def age(path: Path, days: float) -> None:
    then = time.time() - days * 86_400
    os.utime(path, (then, then))


def test_a_file_lies_under_its_digest(store: ArtifactStore) -> None:
    digest = put(store, b"rows", ".parquet")
    assert re.fullmatch(r"[0-9a-f]{32}", digest)
    assert published(store) == [f"{digest[:2]}/{digest}.parquet"]
    assert store.path(digest).read_bytes() == b"rows"
    store.verify(digest)
    assert leftovers(store) == []


def test_a_file_from_another_folder_or_of_a_known_digest_is_moved_in(store: ArtifactStore, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"rows")
    store.new_file()
    assert store.publish_file(elsewhere, digest_file(elsewhere)) == put(store, b"rows")
    assert not elsewhere.exists()


def test_a_folder_lies_under_the_digest_of_its_names_and_contents(store: ArtifactStore) -> None:
    one = put_folder(store, a="1", sub__b="2")
    assert (store.path(one) / "sub" / "b").read_text() == "2"
    assert put_folder(store, sub__b="2", a="1") == one
    assert len({one, put_folder(store, a="1", sub__c="2"), put_folder(store, a="2", sub__b="1")}) == 3
    assert digest_folder(store.path(one)) == one
    assert leftovers(store) == []


def test_names_and_contents_cannot_trade_letters(store: ArtifactStore) -> None:
    assert put_folder(store, ab="c") != put_folder(store, a="bc")


def test_a_folder_that_is_not_sealed_leaves_nothing(store: ArtifactStore) -> None:
    with suppress(ZeroDivisionError), store.new_dir() as folder:
        (folder.path / "half").write_text("x")
        raise ZeroDivisionError
    assert (published(store), leftovers(store)) == ([], [])


def test_publishing_again_mends_a_damaged_artifact(store: ArtifactStore) -> None:
    file, folder = put(store, b"rows"), put_folder(store, a="1")
    store.path(file).write_bytes(b"ro")
    (store.path(folder) / "a").write_text("")
    for digest in (file, folder):
        with pytest.raises(CorruptArtifact, match=f"artifact .*{digest}: its contents have the digest"):
            store.verify(digest)
    assert (put(store, b"rows"), put_folder(store, a="1")) == (file, folder)
    store.verify(file)
    store.verify(folder)


def test_a_missing_artifact_is_corrupt(store: ArtifactStore) -> None:
    digest = put(store, b"rows", ".parquet")
    store.path(digest).unlink()
    for ask in (store.path, store.verify):
        with pytest.raises(CorruptArtifact, match=f"{digest}: missing"):
            ask(digest)
    store.discard(digest)


def test_a_discarded_artifact_is_gone(store: ArtifactStore) -> None:
    digest = put_folder(store, a="1")
    store.discard(digest)
    assert published(store) == []


def test_a_link_is_refused(store: ArtifactStore) -> None:
    with store.new_dir() as folder:
        (folder.path / "link").symlink_to("/etc/hostname")
        with pytest.raises(StoreError, match="an artifact cannot hold a link: link"):
            folder.seal()
    assert published(store) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_publishes_nothing_and_says_so(store: ArtifactStore) -> None:
    def write() -> None:
        with store.new_dir() as folder:
            (folder.path / "half").write_text("x")
            Path("/dev/full").write_bytes(b"x" * 100_000)

    with pytest.raises(StoreError, match="disk full; nothing was published") as caught:
        write()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert (published(store), leftovers(store)) == ([], [])


def test_a_root_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write: Not a directory"):
        ArtifactStore(tmp_path / "file" / "artifacts").new_dir()


def test_garbage_is_what_nothing_refers_to(store: ArtifactStore) -> None:
    live, dead, young = put(store, b"live", ".parquet"), put_folder(store, a="dead"), put(store, b"young")
    age(store.path(live), 1)
    age(store.path(dead), 1)
    assert store.collect_garbage([live]) == 1
    assert sorted(path.split("/")[1].split(".")[0] for path in published(store)) == sorted([live, young])
    assert store.collect_garbage([live], min_age_s=-1) == 1


def test_only_old_leftovers_are_swept(store: ArtifactStore) -> None:
    old, busy, young = store.new_file(), store.new_file(), store.new_file()
    busy.mkdir()
    (busy / "growing").write_text("x")
    for path in (old, young):
        path.write_text("x")
    age(old, 2)
    age(busy, 2)
    assert store.sweep() == 1
    assert sorted(leftovers(store)) == sorted([busy, young])
