"""The machinery of upgrades; what the migrations make is in tests/migrations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sage_core.common.errors import StoreError
from sage_core.platform.database import Dialect
from sage_core.platform.migrate import configuration, downgrade, engine, scripts, upgrade
from sage_core.platform.schema import HEAD, revision_of
from sage_core.platform.spelling import DIALECTS
from sage_core.platform.sqlite import connect
from sage_core.platform.store import JobStore
from tests.postgres import schema_url


@pytest.fixture(params=DIALECTS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    dialect: Dialect = request.param
    return f"sqlite:///{tmp_path}/s.db" if dialect == "sqlite" else schema_url(tmp_path)


def revision(url: str) -> str | None:
    made = engine(url)
    with made.connect() as connection:
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    made.dispose()
    return None if found is None else str(found)


def test_a_database_is_brought_to_a_revision_and_on_and_back(url: str) -> None:
    upgrade(url, "0001")
    assert revision(url) == "0001"
    upgrade(url)
    assert revision(url) == HEAD
    # Whoever comes second finds nothing to do.
    upgrade(url)
    downgrade(url, "0001")
    assert revision(url) == "0001"
    with JobStore.open(url) as store:
        assert store.runs() == []
    assert revision(url) == HEAD


def test_it_can_be_run_by_hand(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    command = [sys.executable, "-W", "error", "-m", "sage_core.platform.migrate", url, "0001"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    database = connect(url, synchronous="NORMAL", statements={})
    assert revision_of(database) == "0001"
    database.close()


def test_an_upgrade_to_nowhere_is_an_error(url: str) -> None:
    with pytest.raises(Exception, match="Can't locate revision identified by '9999'"):
        upgrade(url, "9999")


def test_an_upgrade_that_fails_says_why_without_the_statement(url: str) -> None:
    made = engine(url)
    with made.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE job (mine INTEGER)")
    made.dispose()
    with pytest.raises(StoreError, match=r'the upgrade to head failed: .*job"? already exists') as caught:
        upgrade(url)
    assert "CREATE TABLE" not in str(caught.value)


def test_the_scripts_are_found_and_named_to_alembic(tmp_path: Path) -> None:
    assert (scripts() / "env.py").is_file()
    made = engine(f"sqlite:///{tmp_path}/s.db")
    with made.connect() as connection:
        config = configuration(connection)
        assert config.attributes["connection"] is connection
    made.dispose()
    assert config.get_main_option("script_location") == str(scripts())
