from __future__ import annotations

import os
import pickle
import sqlite3
from pathlib import Path

import pytest

from sage_core.common.errors import StaleAttempt, StoreError, StoreTooNew, StoreUnavailable
from sage_core.platform.migrate import downgrade
from sage_core.platform.records import NewRun
from sage_core.platform.sqlite import connect
from sage_core.platform.store import JobStore


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def pragma(store: JobStore, name: str) -> object:
    return store._db.run(f"PRAGMA {name}")[0][0]


def test_a_store_is_made_with_its_folder_and_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "sage.db"
    with JobStore.open(url(path)) as store, store.transaction() as tx:
        tx.insert_run(NewRun(id="r", workflow="flow"))
    with JobStore.open(url(path)) as store:
        assert [run.id for run in store.runs()] == ["r"]
        assert store.url == url(path)


def test_the_connection_is_set_up(tmp_path: Path) -> None:
    with JobStore.open(url(tmp_path / "s.db")) as store:
        found = [pragma(store, name) for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")]
    assert found == ["wal", 1, 1, 30_000]
    with JobStore.open(url(tmp_path / "s.db"), synchronous="full") as store:
        assert pragma(store, "synchronous") == 2
    with pytest.raises(StoreError, match="unknown synchronous level 'LOW'"):
        JobStore.open(url(tmp_path / "s.db"), synchronous="LOW")


def test_the_clock_counts_epoch_milliseconds(tmp_path: Path) -> None:
    with JobStore.open(url(tmp_path / "s.db")) as store:
        first, seconds = store.now(), int(store._db.run("SELECT strftime('%s', 'now')")[0][0])
    assert abs(first / 1000 - seconds) < 5


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("mysql://me:hunter2@db/sage?password=hunter2", "not a store URL"),
        ("sage.db", "not a store URL"),
        ("sqlite://sage.db", "not a store URL"),
        ("sqlite:///", "a store is a file"),
        ("sqlite:///:memory:", "a store is a file"),
    ],
)
def test_a_wrong_url_is_explained_without_its_password(given: str, problem: str) -> None:
    with pytest.raises(StoreError, match=problem) as caught:
        JobStore.open(given)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value)
    assert "sqlite:///PATH" in str(caught.value)


def test_a_store_of_a_newer_sage_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    JobStore.open(url(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StoreTooNew, match=r"written by a newer SAGE \(schema 9999") as caught:
        JobStore.open(url(path))
    assert "upgrade SAGE" in str(pickle.loads(pickle.dumps(caught.value)))


@pytest.mark.parametrize("tables", [["song"], ["alembic_version", "setting"], ["run", "job"]])
def test_a_foreign_database_is_left_alone(tables: list[str], tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with sqlite3.connect(path) as connection:
        for table in tables:
            connection.execute(f"CREATE TABLE {table} (key TEXT, value TEXT, version_num TEXT)")
            connection.execute(f"INSERT INTO {table} VALUES ('a', 'b', '0001')")
    connection.close()
    with pytest.raises(StoreError, match=f"a foreign database: it holds {', '.join(sorted(tables))}"):
        JobStore.open(url(path))
    with sqlite3.connect(path) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master ORDER BY name")]
    connection.close()
    assert names == sorted(tables)


def test_an_older_store_is_upgraded(tmp_path: Path) -> None:
    # The oldest schema there is: Alembic's base, stamped and still empty.
    path = tmp_path / "s.db"
    JobStore.open(url(path)).close()
    downgrade(url(path), "base")
    with JobStore.open(url(path)) as store:
        assert store.runs() == []


def test_what_is_no_database_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database at all, but long enough to be read as one " * 50)
    with pytest.raises(StoreError, match="not a SQLite database"):
        JobStore.open(url(path))
    assert path.read_text().startswith("not a database")


def test_a_path_that_cannot_be_opened_is_explained(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        JobStore.open(url(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot create .*file/sub"):
        JobStore.open(url(tmp_path / "file" / "sub" / "sage.db"))


def test_a_read_only_store_is_explained(tmp_path: Path) -> None:
    with JobStore.open(url(tmp_path / "s.db")) as store:
        store._db.run("PRAGMA query_only=ON")
        with pytest.raises(StoreError, match=r"read-only .*\n  help: give this user write permission"):
            store.cancel_run("r")
        assert store.runs() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_write_protected_file_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    JobStore.open(url(path)).close()
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    with pytest.raises(StoreError, match=r"read-only|cannot be opened"), JobStore.open(url(path)) as store:
        store.cancel_run("r")
    tmp_path.chmod(0o755)


def test_a_full_disk_is_explained_and_loses_nothing(tmp_path: Path) -> None:
    with JobStore.open(url(tmp_path / "s.db")) as store:
        with store.transaction() as tx:
            tx.insert_run(NewRun(id="kept", workflow="flow"))
        store._db.run(f"PRAGMA max_page_count={pragma(store, 'page_count')}")
        with pytest.raises(StoreError, match=r"disk full .*\n  help: free some space"), store.transaction() as tx:
            tx.insert_run(NewRun(id="lost", workflow="flow", graph=b"x" * 1_000_000))
        store._db.run("PRAGMA max_page_count=1000000")
        with store.transaction() as tx:
            tx.insert_run(NewRun(id="after", workflow="flow"))
        assert [run.id for run in store.runs()] == ["after", "kept"]


def test_a_stale_attempt_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(StaleAttempt("sqlite:///x", 4, 2)))
    assert str(error) == "job 4: fence 2 is stale; another attempt owns the job"


def test_a_file_that_somebody_keeps_locked_is_unavailable_for_now(tmp_path: Path) -> None:
    with JobStore.open(url(tmp_path / "s.db")) as store, JobStore.open(url(tmp_path / "s.db")) as other:
        store._db.run("PRAGMA busy_timeout = 10")
        with other.transaction(), pytest.raises(StoreUnavailable, match="busy: another process kept it locked"):
            store.beat("nobody")
        assert not store.beat("nobody")


def test_a_store_on_a_network_file_system_is_opened_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mounts = tmp_path / "mountinfo"
    for kind in ("ext4", "nfs4"):
        mounts.write_text(f"22 1 8:1 / / rw - {kind} x rw\n", encoding="utf-8")
        connect(url(tmp_path / "s.db"), synchronous="NORMAL", statements={}, mounts=mounts).close()
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert f"store_on_network path={tmp_path}/s.db file_system=nfs4" in record.message
    assert "SQLite is not safe on a network file system: keep the store on a local disk" in record.message
