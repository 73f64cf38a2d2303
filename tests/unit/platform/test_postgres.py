"""The PostgreSQL connection against a real server: what it says when it is refused, and how it outlasts a lost one."""

from __future__ import annotations

import pickle
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from sage_core.common.errors import StoreError, StoreTooNew, StoreUnavailable
from sage_core.platform.migrate import downgrade
from sage_core.platform.postgres import explain
from sage_core.platform.records import NewRun
from sage_core.platform.store import JobStore
from tests.postgres import schema_url, server_url


@pytest.fixture
def url(tmp_path: Path) -> str:
    return schema_url(tmp_path)


@pytest.fixture
def role(url: str) -> Iterator[str]:
    """A user who may read what is in the schema and nothing else."""
    name, schema = f"reader_{secrets.token_hex(4)}", url.rpartition("%3D")[2]
    JobStore.open(url).close()
    with psycopg.connect(server_url(), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {name} LOGIN")
        admin.execute(f"GRANT USAGE ON SCHEMA {schema} TO {name}")
        admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {name}")
        yield name
        admin.execute(f"DROP OWNED BY {name}")
        admin.execute(f"DROP ROLE {name}")


def add(store: JobStore, id: str) -> None:
    with store.transaction() as tx:
        tx.insert_run(NewRun(id=id, workflow="flow"))


def cut(store: JobStore) -> None:
    """End the server's side of a handle's connection."""
    [[pid]] = store._db.run("SELECT pg_backend_pid()")
    with psycopg.connect(server_url(), autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


# ------------------------------------------------------------ what is refused


@pytest.mark.parametrize("port", [1, 65_000])
def test_a_server_that_is_not_there_is_unavailable_and_its_password_masked(port: int) -> None:
    given = f"postgresql://me:hunter2@127.0.0.1:{port}/sage?password=hunter2"
    with pytest.raises(StoreUnavailable, match="cannot be reached or is busy") as caught:
        JobStore.open(given)
    texts = (str(caught.value), repr(caught.value), pickle.dumps(caught.value).decode("latin-1"))
    assert all("hunter2" not in text for text in texts)
    assert "store postgresql://me:***@127.0.0.1" in str(caught.value)
    assert "help: see that the server runs, and try again" in str(caught.value)


def test_a_database_that_does_not_exist_is_named() -> None:
    url = server_url().replace("/postgres?", "/nowhere?")
    assert "nowhere" in url
    with pytest.raises(StoreError, match=r'there is no such database .*database "nowhere" does not exist') as caught:
        JobStore.open(url)
    assert not isinstance(caught.value, StoreUnavailable)
    assert "help: create it: createdb NAME" in str(caught.value)


def test_a_user_who_does_not_exist_is_refused_for_good() -> None:
    url = server_url().replace("//postgres:", "//nobody_of_this_name:")
    with pytest.raises(StoreError, match="the server refused the user or the password") as caught:
        JobStore.open(url)
    assert not isinstance(caught.value, StoreUnavailable)


def test_a_host_that_has_no_address_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable, match="cannot be reached or is busy"):
        JobStore.open("postgresql://me@no-such-host.invalid/sage")


def test_a_user_without_rights_may_read_and_not_write(url: str, role: str) -> None:
    with JobStore.open(url) as store:
        add(store, "one")
    with JobStore.open(url.replace("//postgres:", f"//{role}:")) as store:
        assert [run.id for run in store.runs()] == ["one"]
        with pytest.raises(StoreError, match=r"this user may not do that .*permission denied for table") as caught:
            add(store, "two")
        assert "help: give the user rights on the schema" in str(caught.value)
        assert [run.id for run in store.runs()] == ["one"]


def test_a_user_without_rights_cannot_make_the_schema(url: str, role: str) -> None:
    downgrade(url, "base")
    with pytest.raises(StoreError, match="the upgrade to head failed: permission denied for schema") as caught:
        JobStore.open(url.replace("//postgres:", f"//{role}:"))
    assert "CREATE TABLE" not in str(caught.value)


def test_a_database_that_is_read_only_says_so(url: str) -> None:
    JobStore.open(url).close()
    with JobStore.open(f"{url}%20-cdefault_transaction_read_only%3Don") as store:
        assert store.runs() == []
        with pytest.raises(StoreError, match=r"read-only .*cannot execute INSERT in a read-only transaction") as caught:
            add(store, "one")
    assert "help: name the primary server, or a user who may write" in str(caught.value)


def test_a_newer_and_a_foreign_schema_are_refused_untouched(url: str) -> None:
    with JobStore.open(url) as store:
        store._db.run("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreTooNew, match=r"written by a newer SAGE \(schema 9999"):
        JobStore.open(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE setting SET value = 'other' WHERE key = 'product'")
    with pytest.raises(StoreError, match="a foreign database: it holds alembic_version") as caught:
        JobStore.open(url)
    assert "nothing was changed in this one" in str(caught.value)


def test_text_that_the_database_cannot_keep_is_explained(url: str) -> None:
    with JobStore.open(url) as store, pytest.raises(StoreError, match="NUL"):
        add(store, "a\0b")


@pytest.mark.parametrize(
    ("state", "problem", "passes"),
    [
        ("08006", "cannot be reached or is busy", True),
        ("57P01", "cannot be reached or is busy", True),
        ("53300", "cannot be reached or is busy", True),
        ("40P01", "cannot be reached or is busy", True),
        ("55P03", "cannot be reached or is busy", True),
        ("25P03", "cannot be reached or is busy", True),
        ("28P01", "the server refused the user or the password", False),
        ("3D000", "there is no such database", False),
        ("25006", "read-only", False),
        ("42501", "this user may not do that", False),
        ("53100", "disk full", False),
        ("23505", "refused by a constraint", False),
        ("22021", "text that the database cannot keep", False),
        ("42601", "what the server said", False),
    ],
)
def test_an_error_is_explained_by_its_sqlstate(state: str, problem: str, passes: bool) -> None:
    error = explain("postgresql://me:***@host/sage", psycopg.errors.lookup(state)("what the server said\nDETAIL: more"))
    assert problem in str(error)
    assert "DETAIL" not in str(error)
    assert isinstance(error, StoreUnavailable) is passes


# ------------------------------------------------------------ a lost connection


def test_a_handle_goes_on_after_its_connection_was_cut(url: str) -> None:
    with JobStore.open(url) as store:
        add(store, "one")
        cut(store)
        with pytest.raises(StoreUnavailable):
            store.runs()
        assert [run.id for run in store.runs()] == ["one"]
        add(store, "two")
        assert len(store.runs()) == 2


def _cut_inside(store: JobStore) -> None:
    with store.transaction() as tx:
        tx.insert_run(NewRun(id="one", workflow="flow"))
        cut(store)
        tx.insert_run(NewRun(id="two", workflow="flow"))


def test_a_transaction_that_was_cut_leaves_nothing(url: str) -> None:
    with JobStore.open(url) as store:
        with pytest.raises(StoreUnavailable):
            _cut_inside(store)
        assert store.runs() == []
        add(store, "three")
        assert [run.id for run in store.runs()] == ["three"]


def test_a_cut_handle_still_hears_of_commits(url: str) -> None:
    with JobStore.open(url) as store, JobStore.open(url) as other:
        store.changed()
        cut(store)
        with pytest.raises(StoreUnavailable):
            store.runs()
        # What was said meanwhile is lost, so the first answer is yes.
        assert store.changed()
        assert not store.changed()
        add(other, "one")
        # An answer brings what was told before it.
        assert len(store.runs()) == 1
        assert store.changed()


CUT_IN_A_PIPELINE = """
import sys
import psycopg
from sage_core.common.errors import StoreUnavailable
from sage_core.platform.store import JobStore
with JobStore.open(sys.argv[1]) as store:
    [[pid]] = store._db.run("SELECT pg_backend_pid()")
    try:
        with store.transaction() as tx:
            tx.release([1])
            with psycopg.connect(sys.argv[1], autocommit=True) as admin:
                admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            tx.put_result("key", b"body", run_id="run")
    except StoreUnavailable:
        print("told")
"""


def test_a_connection_that_is_cut_in_a_pipeline_is_told_of_once(url: str) -> None:
    done = subprocess.run([sys.executable, "-c", CUT_IN_A_PIPELINE, url], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("told\n", "")


def test_a_transaction_is_begun_with_its_first_statement_and_one_without_any_is_none(url: str) -> None:
    with JobStore.open(url) as store, JobStore.open(url) as other:
        status = store._db._connection.info  # type: ignore[attr-defined]
        with store.transaction() as tx:
            assert status.transaction_status == TransactionStatus.IDLE
            with pytest.raises(StoreError, match="already open"), store.transaction():
                pass
            tx.put_result("key", b"body", run_id="run")
            assert status.transaction_status == TransactionStatus.INTRANS
            assert other.results(["key"]) == {}
        assert other.results(["key"]) == {"key": b"body"}
        with pytest.raises(ZeroDivisionError), store.transaction():
            raise ZeroDivisionError
        with store.transaction():
            pass
        assert not store._db.in_transaction()


def test_a_transaction_begins_on_a_connection_made_anew(url: str) -> None:
    with JobStore.open(url) as store:
        cut(store)
        with pytest.raises(StoreUnavailable):
            store.runs()
        with store.transaction() as tx:
            tx.put_result("key", b"body", run_id="run")
        assert store.results(["key"]) == {"key": b"body"}
