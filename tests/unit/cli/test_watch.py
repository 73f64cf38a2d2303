"""Tests of sage_core.cli.watch: a listing again whenever the store has changed, on both databases."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import psycopg
import pytest

from sage_core.cli.watch import changes, pause, present
from sage_core.common.errors import StoreUnavailable
from sage_core.platform.records import NewRun
from sage_core.platform.store import JobStore
from tests.postgres import schema_url

MAKERS: dict[str, Callable[[Path], str]] = {"sqlite": lambda place: f"sqlite:///{place}/s.db", "postgres": schema_url}


@pytest.fixture(params=MAKERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return MAKERS[request.param](tmp_path)


def add(store: JobStore, id: str) -> None:
    with store.transaction() as tx:
        tx.insert_run(NewRun(id=id, workflow="w"))


def ids(store: JobStore) -> list[str]:
    return sorted(run.id for run in store.runs())


def test_each_change_is_shown_once(url: str) -> None:
    with JobStore.open(url) as store, JobStore.open(url) as other:
        steps = iter([["a"], [], ["b"]])

        def step(_: JobStore) -> None:
            for id in next(steps):
                add(other, id)

        seen = changes(store, ids, lambda found: found == ["a", "b"], step)
        assert list(seen) == [[], ["a"], ["a", "b"]]


def test_a_change_ends_the_pause(url: str) -> None:
    with JobStore.open(url) as store, JobStore.open(url) as other:
        assert not pause(store, look=0)
        add(other, "a")
        assert pause(store)
        assert not pause(store, look=0)


def test_a_database_that_is_away_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers: Iterator[object] = iter([["a"], StoreUnavailable("postgresql://h/d", "cannot be reached", ""), ["b"]])

    def read(store: JobStore) -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with JobStore.open(f"sqlite:///{tmp_path}/s.db") as store:
        assert list(changes(store, read, lambda value: value == ["b"], lambda store: None)) == [["a"], ["b"]]
    assert capsys.readouterr().err == "waiting: postgresql://h/d cannot be reached\n"


def test_once_without_watch(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with JobStore.open(url) as store:
        add(store, "a")
        present(store, ids, lambda found: click.echo(found[0]), as_json=False, watch=False)
        present(store, ids, click.echo, as_json=True, watch=False)
    assert capsys.readouterr().out == 'a\n[\n  "a"\n]\n'


class Watching:
    """`sage … --watch` as a process of its own."""

    def __init__(self, home: Path, *arguments: str, stdout: int = subprocess.PIPE) -> None:
        command = [sys.executable, "-m", "sage_core.cli", *arguments]
        environ = {**os.environ, "SAGE_HOME": str(home), "SAGE_PLUGINS": "", "TERM": "xterm"}
        self.process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, env=environ, text=True)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def interrupt(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate()
        return self.process.returncode, said


def test_json_has_one_document_a_line(sage_home: Path) -> None:
    watching = Watching(sage_home, "runs", "list", "--json", "--watch")
    assert json.loads(watching.line()) == []
    with JobStore.open(f"sqlite:///{sage_home}/project/sage.db") as store:
        add(store, "a")
        assert [run["run_id"] for run in json.loads(watching.line())] == ["a"]
        store.cancel_run("a")
        assert [run["status"] for run in json.loads(watching.line())] == ["cancelled"]
    assert watching.interrupt() == (130, "")


def test_a_pipe_gets_listings_one_after_another(sage_home: Path) -> None:
    with JobStore.open(f"sqlite:///{sage_home}/project/sage.db") as store:
        add(store, "a")
        watching = Watching(sage_home, "runs", "list", "--watch")
        assert watching.line().split() == ["run", "status", "workflow", "created"]
        assert watching.line().split()[:2] == ["a", "queued"]
        store.cancel_run("a")
        assert watching.line() == "\n"
        assert watching.line().split()[0] == "run"
        assert watching.line().split()[:2] == ["a", "cancelled"]
    assert watching.interrupt() == (130, "")


def test_a_terminal_is_drawn_in_place(sage_home: Path) -> None:
    ours, theirs = pty.openpty()
    with JobStore.open(f"sqlite:///{sage_home}/project/sage.db") as store:
        add(store, "a")
        watching = Watching(sage_home, "runs", "list", "--watch", stdout=theirs)
        os.close(theirs)
        seen = _until(ours, "queued")
        store.cancel_run("a")
        seen += _until(ours, "cancelled")
    # Up one line, and erase it: the listing is drawn over the one before.
    assert re.search(r"\x1b\[1A\x1b\[2K", seen)
    assert watching.interrupt() == (130, "")
    os.close(ours)


def _until(terminal: int, text: str) -> str:
    seen = ""
    while text not in seen:
        seen += os.read(terminal, 4096).decode()
    return seen


def test_a_connection_that_was_cut_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = schema_url(tmp_path)
    steps = iter([[], ["cut"], ["a"]])
    with JobStore.open(url) as store, JobStore.open(url) as other, psycopg.connect(url, autocommit=True) as admin:
        ((pid,),) = store._db.run("SELECT pg_backend_pid()")

        def step(_: JobStore) -> None:
            for word in next(steps):
                if word == "cut":
                    admin.execute("SELECT pg_terminate_backend(%s)", [pid])
                else:
                    add(other, word)

        assert list(changes(store, ids, lambda found: found == ["a"], step)) == [[], ["a"]]
    assert re.fullmatch(r"waiting: postgresql://\S+ cannot be reached or is busy \(.*\)\n", capsys.readouterr().err)
