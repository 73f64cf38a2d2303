"""Running commands in a home of their own, and what the probe hears in them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from sage_bench.home import CommandFailed, Home
from sage_bench.measures.jobs import counted


def test_a_command_is_timed_and_its_output_kept(tmp_path: Path) -> None:
    done = Home(tmp_path / "home").run([sys.executable, "-c", "print('{\"a\": 1}')"])
    assert done.report == {"a": 1}
    assert 0 < done.seconds < 60
    assert done.heard == []


def test_a_command_that_fails_says_how(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"ended with status 3: out of luck"):
        Home(tmp_path / "home").run(
            [sys.executable, "-c", "import sys; print('out of luck', file=sys.stderr); sys.exit(3)"]
        )


def test_what_changes_figures_is_kept_from_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("SAGE_PLUGINS", "none")
    code = "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if k[:4] in ('SAGE', 'PYTH')}))"
    seen = Home(tmp_path / "home").run([sys.executable, "-c", code]).report
    assert seen.pop("SAGE_HOME").startswith(str(tmp_path))
    assert not {"PYTHONDONTWRITEBYTECODE", "SAGE_PLUGINS"} & seen.keys()


def test_the_probe_hears_imports_connections_and_processes_in_order(tmp_path: Path) -> None:
    code = (
        "import sqlite3, subprocess, sys, numpy; sqlite3.connect(':memory:'); "
        "subprocess.run([sys.executable, '-c', 'pass'])"
    )
    done = Home(tmp_path / "home").run([sys.executable, "-c", code], probe=True)
    parent, child = sorted(done.heard, key=lambda heard: -len(heard.stamps))
    assert [name.split()[0] for name, _ in parent.stamps] == ["start", "import", "connect", "spawn", "exit"]
    assert "numpy" in parent.loaded
    assert "numpy" not in child.loaded
    times = [at for _, at in parent.stamps]
    assert done.started < times[0] <= times[-1] < done.ended
    assert times == sorted(times)


def test_statements_are_counted_by_their_first_word_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sqlite3, subprocess, sys; c = sqlite3.connect(':memory:', isolation_level=None); "
        "c.execute('create table t (a)'); c.executemany('insert into t values (?)', [(1,), (2,)]); "
        "c.execute('PRAGMA data_version'); "
        "subprocess.run([sys.executable, '-c', \"import sqlite3; sqlite3.connect(':memory:').execute('select 1')\"])"
    )
    done = Home(tmp_path / "home").run([sys.executable, "-c", code], probe=True, sql=True)
    assert counted(done) == {"CREATE": 1, "INSERT": 2, "PRAGMA DATA_VERSION": 1, "SELECT": 1}
