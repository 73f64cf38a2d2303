"""The page on operations, executed: its shell blocks in their order and its query, over SQLite and over PostgreSQL."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.conftest import SAGE
from tests.postgres import schema_url

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
WORKFLOW = """
sage = 1
name = "nightly"

[steps.files]
use = "rag.files"
with = { path = "notes" }

[steps.parse]
use = "rag.parse"
in = { file = "files" }

[outputs]
texts = "parse.text"
"""
#: Where the wheel that tests take PostgreSQL from has its programs, among them psql and pg_dump.
PROGRAMS = Path(importlib.util.find_spec("pgserver").origin).parent / "pginstall" / "bin"  # type: ignore[arg-type, union-attr]

URLS: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda place: f"sqlite:///{place}/home/project/sage.db",
    "postgresql": schema_url,
}


def blocks(*kinds: str) -> list[str]:
    found = re.findall(r"^```([^\n]*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind in kinds]


class Place:
    """A project of one workflow, and a shell in it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        (folder / "notes").mkdir()
        (folder / "notes" / "a.md").write_text("# A note\n\nWith a text.\n")
        (folder / "workflow.toml").write_text(WORKFLOW)
        (folder / "sage.toml").write_text(f'[store]\nurl = "{url}"\n[queues.default]\nidle = 1\n')
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("SAGE_", "PG"))}
        path = os.pathsep.join([str(SAGE.parent), str(PROGRAMS), clean["PATH"]])
        self._environ = {**clean, "PATH": path, "SAGE_HOME": str(folder / "home"), "DATABASE_URL": url}

    def sh(self, script: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


@pytest.mark.parametrize("database", URLS)
def test_the_page_can_be_followed(database: str, tmp_path: Path) -> None:
    place = Place(tmp_path, URLS[database](tmp_path))
    said = [place.sh(block) for block in blocks("sh", f"sh {database}")]
    assert len(said) == len(blocks("sh")) + (2 if database == "postgresql" else 1)
    text = "\n".join(said)
    assert "deployed nightly, version 1, to queue default\n" in text
    assert "queue default: 1 workers started, 0 died\n" in text
    assert re.search(r"^run \S+: succeeded in ", text, re.MULTILINE)
    assert re.search(r"^status +succeeded$", text, re.MULTILINE)
    assert "With a text." in text
    if database == "sqlite":
        with sqlite3.connect(tmp_path / "backup.db") as copy:
            assert copy.execute("SELECT COUNT(*) FROM run WHERE status = 'succeeded'").fetchone() == (2,)
        copy.close()
    else:
        assert "node left: left, because there was nothing to do" in text
        assert "node right: left, because there was nothing to do" in text
        place.sh('pg_restore --list sage.dump | grep "VIEW .* sage_queue_depth"')


@pytest.mark.parametrize("database", URLS)
def test_the_scalers_query_counts_what_waits(database: str, tmp_path: Path) -> None:
    place = Place(tmp_path, URLS[database](tmp_path))
    (query,) = blocks("sql")

    def depth() -> int:
        if database == "sqlite":
            connection = sqlite3.connect(tmp_path / "home" / "project" / "sage.db")
            (found,) = connection.execute(query).fetchone()
            connection.close()
        else:
            with psycopg.connect(place.url) as opened:
                row = opened.execute(query).fetchone()
                assert row is not None
                found = row[0]
        return int(found)

    place.sh("sage deploy workflow.toml")
    assert depth() == 0
    place.sh("sage invoke nightly --no-spawn")
    assert depth() == 1
    place.sh("sage worker --until-idle 1s")
    assert depth() == 0


def test_workers_log_json_where_it_is_wished_for(tmp_path: Path) -> None:
    place = Place(tmp_path, URLS["sqlite"](tmp_path))
    run = place.sh("sage deploy workflow.toml > /dev/null; sage invoke nightly --no-spawn").strip()
    place.sh("SAGE_LOG=json sage worker --until-idle 1s")
    lines = (tmp_path / "home" / "project" / "logs" / "workers.log").read_text(encoding="utf-8").splitlines()
    logged = [json.loads(line) for line in lines]
    assert {"level": "info", "action": "run_finished", "run": run, "status": "succeeded"}.items() <= logged[-1].items()
