"""What a user is promised about interruptions: finished work is kept, nothing is done twice, results are the same."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from sage_core.platform.store import JobStore
from tests.acceptance.conftest import Sage, partitions

#: Indexes a folder in small partitions; `size` keeps a document in one chunk, so that rows are easy to count.
INDEX = """
sage = 1
name = "index"

[params.docs]
type = "path"

[models.minilm]
backend = "onnx"

[steps.files]
use = "rag.files"
with = { path = "${params.docs}" }

[steps.parse]
use = "rag.parse"
in = { file = "files" }
on_error = "skip"
partition = 16

[steps.chunk]
use = "rag.chunk"
in = { text = "parse.text" }

[steps.embed]
use = "llm.embed"
in = { text = "chunk.text" }
with = { model = "minilm" }

[steps.index]
use = "rag.index"
in = { vector = "embed.vector", text = "chunk.text", path = "files.path", start = "chunk.start", end = "chunk.end" }

[outputs]
index = "index"
"""


@pytest.fixture
def library(sage: Sage) -> Path:
    """The workflow, and a folder of 200 one-chunk documents."""
    (sage.cwd / "index.toml").write_text(INDEX)
    docs = sage.cwd / "docs"
    docs.mkdir()
    for number in range(200):
        words = " ".join(f"word{number * 7 + step}" for step in range(60))
        (docs / f"d{number:03}.txt").write_text(f"Document {number} speaks of {words}.\n")
    return docs


def done_jobs(home: Path, stage: str) -> int:
    """Jobs of a stage that are done, read from the database behind the command's back."""
    database = home / "project" / "sage.db"
    if not database.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as db:
        if not db.execute("select 1 from sqlite_master where name = 'job'").fetchone():
            return 0
        (count,) = db.execute("select count(*) from job where stage = ? and state = 'done'", (stage,)).fetchone()
    return int(count)


def wait_for(condition: Any, what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        # The event is another process's commit; there is nothing of ours to wait on.
        time.sleep(0.005)


def alive_in_group(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.timeout(180)
def test_kill_9_of_the_process_group_loses_no_finished_partition(sage: Sage, library: Path) -> None:
    undisturbed = sage.at(sage.home.with_name("calm")).json("run", "index.toml", "-p", "docs=docs", "--workers", "2")

    child = sage.start("run", "index.toml", "-p", "docs=docs", "--workers", "2")
    wait_for(lambda: done_jobs(sage.home, "parse") >= 3, "three partitions done")
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    wait_for(lambda: not alive_in_group(child.pid), "the whole group is gone")
    done = done_jobs(sage.home, "parse")
    (run,) = sage.json("runs", "list")
    assert run["status"] == "running"

    resumed = sage.json("runs", "resume", run["run_id"], "--workers", "2")

    total, reused, ran = partitions(resumed, "embed")
    assert resumed["status"] == "succeeded"
    assert total >= 8
    assert 3 <= done < total, "the kill came between the first and the last partition"
    assert (reused, ran) == (done, total - done)
    memo = resumed["steps"]["embed"]["memo"]
    with contextlib.closing(sqlite3.connect(sage.home / "project" / "sage.db")) as db:
        rows = db.execute(
            "select sum(stop - start) from job where stage = 'parse' and session = 2 and state = 'done'"
        ).fetchone()[0]
    assert memo["computed"] + memo["remembered"] == rows
    assert resumed["outputs"]["index"]["digest"] == undisturbed["outputs"]["index"]["digest"]


@pytest.mark.timeout(180)
def test_one_file_in_front_of_200_reruns_two_partitions_at_most(sage: Sage, library: Path) -> None:
    first = sage.json("run", "index.toml", "-p", "docs=docs", "--inline")
    (library / "a-new.txt").write_text("A new document about something else entirely.\n")

    second = sage.json("run", "index.toml", "-p", "docs=docs", "--inline")

    assert partitions(first, "embed")[0] >= 8
    assert partitions(second, "embed")[2] <= 2
    assert second["steps"]["embed"]["memo"]["computed"] == 1
    assert second["steps"]["embed"]["rows_in"] == first["steps"]["embed"]["rows_in"] + 1


@pytest.mark.timeout(180)
def test_two_workers_share_one_model_and_one_decision_log(sage: Sage, library: Path) -> None:
    report = sage.json("run", "index.toml", "-p", "docs=docs", "--workers", "2")

    lines = [json.loads(line) for line in (sage.home / "project" / "logs" / "decisions.jsonl").read_text().splitlines()]
    embeds = [line for line in lines if line["kind"] == "embed" and line["run"] == report["run_id"]]
    assert len({line["worker"] for line in embeds}) == 2
    assert len({line["engine"] for line in embeds if line["engine"]}) == 1
    assert sum(line["rows"] for line in embeds if line["outcome"] == "done") == 200


@pytest.mark.timeout(180)
@pytest.mark.parametrize("signals", [1, 2])
def test_ctrl_c_stops_the_run_and_a_resume_completes_it(sage: Sage, library: Path, signals: int) -> None:
    child = sage.start("run", "index.toml", "-p", "docs=docs", "--workers", "2")
    wait_for(lambda: done_jobs(sage.home, "parse") >= 2, "two partitions done")
    for _ in range(signals):
        os.killpg(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=60)

    assert child.returncode == 130, err
    assert "sage runs resume" in err
    wait_for(lambda: not alive_in_group(child.pid), "nothing is left of the process group")
    (run,) = sage.json("runs", "list")
    assert run["status"] == "cancelled"
    resumed = sage.json("runs", "resume", run["run_id"])
    assert resumed["status"] == "succeeded"
    assert partitions(resumed, "embed")[1] >= 2


@pytest.mark.timeout(120)
def test_a_killed_worker_is_replaced_and_its_job_run_again(sage: Sage, library: Path) -> None:
    child = sage.start("run", "index.toml", "-p", "docs=docs", "--workers", "1", "--json")
    wait_for(lambda: done_jobs(sage.home, "parse") >= 1, "a partition done")
    with contextlib.closing(sqlite3.connect(sage.home / "project" / "sage.db", timeout=5)) as db:
        (pid,) = db.execute("select pid from worker where kind = 'worker' and stopped_at is null").fetchone()
    os.kill(pid, signal.SIGKILL)
    out, err = child.communicate(timeout=100)

    assert child.returncode == 0, err
    assert json.loads(out)["status"] == "succeeded"
    assert json.loads(out)["steps"]["embed"]["rows_out"] == 200


@pytest.mark.timeout(120)
def test_a_corrupt_artifact_is_named_and_made_again(sage: Sage, library: Path) -> None:
    # Large partitions, so that results are files and not rows of the store.
    (sage.cwd / "index.toml").write_text(INDEX.replace("partition = 16", "partition = 256"))
    first = sage.json("run", "index.toml", "-p", "docs=docs", "--inline")
    victims = sorted((sage.home / "project" / "artifacts").rglob("*.parquet"))
    assert victims
    for victim in victims:
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    (library / "a-new.txt").write_text("A new document, so that the index is built again.\n")

    broken = sage.json("run", "index.toml", "-p", "docs=docs", "--inline", code=1)
    assert ".parquet" in broken["error"]
    assert "digest" in broken["error"]
    resumed = sage.json("runs", "resume", broken["run_id"], "--inline")
    for _ in victims:
        if resumed["status"] == "succeeded":
            break
        resumed = sage.json("runs", "resume", broken["run_id"], "--inline")

    assert resumed["status"] == "succeeded"
    (library / "a-new.txt").unlink()
    again = sage.json("run", "index.toml", "-p", "docs=docs", "--inline")
    assert again["outputs"]["index"]["digest"] == first["outputs"]["index"]["digest"]


def test_a_store_from_a_newer_version_is_left_alone(sage: Sage, library: Path) -> None:
    database = sage.home / "project" / "sage.db"
    JobStore.open(f"sqlite:///{database}").close()
    with contextlib.closing(sqlite3.connect(database)) as db, db:
        db.execute("update alembic_version set version_num = '9999_from_the_future'")

    refused = sage("run", "index.toml", "-p", "docs=docs", code=1)

    assert "newer" in refused.stderr
    assert "9999_from_the_future" in refused.stderr


def test_two_runs_after_one_another_leave_no_process_behind(sage: Sage, library: Path) -> None:
    child = sage.start("run", "index.toml", "-p", "docs=docs", "--workers", "2")
    child.communicate(timeout=100)
    assert child.returncode == 0
    wait_for(lambda: not alive_in_group(child.pid), "workers and engine host are gone", seconds=10)
