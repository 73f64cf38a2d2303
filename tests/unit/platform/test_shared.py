"""Artifacts of two machines that share a PostgreSQL and no disk; on SQLite nothing travels."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg
import pytest

from sage_core.common.errors import CorruptArtifact
from sage_core.platform.artifacts import ArtifactStore
from sage_core.platform.cluster import PIECE
from sage_core.platform.shared import artifacts_of, share
from sage_core.platform.store import JobStore
from tests.postgres import schema_url


@pytest.fixture
def url(tmp_path: Path) -> str:
    return schema_url(tmp_path)


def new_file(artifacts: ArtifactStore, body: bytes, suffix: str = ".parquet") -> str:
    tmp = artifacts.new_file()
    tmp.write_bytes(body)
    return artifacts.publish_file(tmp, suffix=suffix)


def new_folder(artifacts: ArtifactStore, files: dict[str, bytes]) -> str:
    with artifacts.new_dir() as folder:
        for name, body in files.items():
            (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
            (folder.path / name).write_bytes(body)
        return folder.seal()


HOUR = 3_600_000
FILES = {"index.bin": os.urandom(3 * PIECE // 2), "meta/ids.json": b"[1]", "empty": b""}


def test_a_file_and_a_folder_reach_another_machine(url: str, tmp_path: Path) -> None:
    body = os.urandom(2 * PIECE + 17)
    with JobStore.open(url) as store, JobStore.open(url) as other:
        here, there = artifacts_of(tmp_path / "here", store), artifacts_of(tmp_path / "there", other)
        made = [new_file(here, body), new_folder(here, FILES)]
        share(store, here, made)
        for digest in made:
            assert other.has_blob(digest)
            there.obtain(digest)
            there.verify(digest)
        assert there.obtain(made[0]).name == f"{made[0]}.parquet"
        assert there.obtain(made[0]).read_bytes() == body
        found = there.obtain(made[1])
        assert {name: (found / name).read_bytes() for name in FILES} == FILES
        assert list((tmp_path / "there" / "tmp").iterdir()) == []


def test_the_pieces_of_equal_artifacts_are_equal_and_shared_once(url: str, tmp_path: Path) -> None:
    with JobStore.open(url) as store:
        first, second = artifacts_of(tmp_path / "a", store), artifacts_of(tmp_path / "b", store)
        digest = new_folder(first, FILES)
        share(store, first, [digest, digest])
        pieces = [store.blob_piece(digest, n) for n in range(3)]
        assert [piece is not None and len(piece) <= PIECE for piece in pieces] == [True, True, False]
        with store.transaction() as tx:
            tx.drop_blobs([digest])
        assert new_folder(second, dict(reversed(FILES.items()))) == digest
        share(store, second, [digest])
        assert [store.blob_piece(digest, n) for n in range(3)] == pieces


def test_a_damaged_copy_is_replaced_and_one_that_is_nowhere_is_reported(url: str, tmp_path: Path) -> None:
    with JobStore.open(url) as store:
        here = artifacts_of(tmp_path / "here", store)
        digest, lonely = new_folder(here, FILES), new_file(here, b"alone")
        share(store, here, [digest])
        (here.path(digest) / "empty").write_bytes(b"not")
        here.verify(digest)
        assert (here.path(digest) / "empty").read_bytes() == b""
        here.path(lonely).write_bytes(b"changed")
        with pytest.raises(CorruptArtifact, match="its contents have the digest"):
            here.verify(lonely)
        with pytest.raises(CorruptArtifact, match="missing"):
            here.obtain("0" * 32)


def test_a_file_that_is_shared_again_is_not_dropped_as_an_old_one(url: str, tmp_path: Path) -> None:
    with JobStore.open(url) as store, JobStore.open(url) as other:
        here = artifacts_of(tmp_path / "here", store)
        digest = new_folder(here, FILES)
        share(store, here, [digest])
        with psycopg.connect(url) as database:
            database.execute("UPDATE blob SET created_at = 0")
        share(store, here, [digest])
        with other.transaction() as tx:
            assert tx.drop_blobs([digest], keep_ms=HOUR) == 0
        with other.transaction() as tx:
            assert tx.drop_blobs([digest]) > 0
        assert not store.has_blob(digest)


def test_what_the_database_holds_is_not_believed(url: str, tmp_path: Path) -> None:
    with JobStore.open(url) as store:
        here, there = artifacts_of(tmp_path / "here", store), artifacts_of(tmp_path / "there", store)
        digest, wrong = new_file(here, b"right"), "1" * 32
        share(store, here, [digest])
        piece = store.blob_piece(digest, 0)
        assert piece is not None
        with store.transaction() as tx:
            tx.put_blob(wrong, [piece])
            tx.put_blob("2" * 32, [b"no tar"])
        with pytest.raises(CorruptArtifact, match=f"{wrong} in the database: its contents have the digest {digest}"):
            there.obtain(wrong)
        with pytest.raises(CorruptArtifact, match="cannot be unpacked"):
            there.obtain("2" * 32)
        assert not list((tmp_path / "there").glob("[12]*"))


def test_what_is_not_here_cannot_be_shared_and_leaves_nothing(url: str, tmp_path: Path) -> None:
    with JobStore.open(url) as store:
        here = artifacts_of(tmp_path / "here", store)
        with pytest.raises(CorruptArtifact, match="missing"):
            share(store, here, ["0" * 32])
        assert store.blobs() == set()


def test_nothing_travels_through_sqlite(tmp_path: Path) -> None:
    with JobStore.open(f"sqlite:///{tmp_path / 'sage.db'}") as store:
        artifacts = artifacts_of(tmp_path / "here", store)
        share(store, artifacts, [new_file(artifacts, b"x")])
        assert store.blobs() == set()
        assert not artifacts.is_cache
