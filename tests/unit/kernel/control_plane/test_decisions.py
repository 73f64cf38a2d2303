"""The decision log: whole lines, rotation, and several writers."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from pathlib import Path

from sage_core.kernel.control_plane.decisions import DecisionLog, lines_of, log_files
from sage_core.kernel.control_plane.events import Decided


def line(number: int) -> Decided:
    return Decided(
        request=f"r{number}", kind="embed", model="m", lane="l", tenant="t", service_class="standard", run="", step="",
        worker="w", rows=1, tokens=3, wait=7, engine="e", batch=number, predicted=0.1, actual=0.2, outcome="done",
    )  # fmt: skip


def requests(path: Path) -> list[str]:
    return [json.loads(each)["request"] for each in path.read_text().splitlines()]


def test_nothing_is_created_before_the_first_line(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "logs")
    log.write([])
    assert not (tmp_path / "logs").exists()


def test_two_writers_append_whole_lines_that_say_when(tmp_path: Path) -> None:
    first, second = DecisionLog(tmp_path), DecisionLog(tmp_path)
    for number in range(0, 20, 2):
        first.write([line(number)])
        second.write([line(number + 1)])
    first.close()
    second.close()
    assert requests(first.path) == [f"r{n}" for n in range(20)]
    stamps = [json.loads(each)["at"] for each in first.path.read_text().splitlines()]
    assert stamps == sorted(stamps)
    assert first.path.stat().st_mode & 0o077 == 0


def test_the_log_starts_afresh_when_it_is_full_and_keeps_one_older_file(tmp_path: Path) -> None:
    log, other = DecisionLog(tmp_path, rotate=2_500), DecisionLog(tmp_path, rotate=2_500)
    other.write([line(0)])
    number = 0
    while not (tmp_path / "decisions.1.jsonl").exists():
        number += 1
        log.write([line(number)])
    log.write([line(98)])
    # The other one still holds the file that was renamed: it finds that out and rotates nothing.
    other.write([line(99)])
    other.write([line(100)])
    log.close()
    other.close()
    assert requests(tmp_path / "decisions.1.jsonl") == [*(f"r{n}" for n in range(number + 1)), "r99"]
    assert requests(log.path) == ["r98", "r100"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["decisions.1.jsonl", "decisions.jsonl"]


def test_of_two_writers_that_find_the_log_full_at_one_moment_one_rotates_it(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, rotate=2_500)
    while not log.path.exists() or log.path.stat().st_size < 1_500:
        log.write([line(1)])
    before = log.path.stat().st_size
    turn = os.open(log.path, os.O_RDONLY)
    fcntl.flock(turn, fcntl.LOCK_EX)
    writer = threading.Thread(target=log.write, args=([line(2)] * 3,))
    writer.start()
    while log.path.stat().st_size == before:
        pass
    # The one whose turn it is rotates, and begins the fresh file that the other one must not put over the older.
    os.replace(log.path, tmp_path / "decisions.1.jsonl")
    log.path.write_text("fresh\n")
    os.close(turn)
    writer.join()
    assert requests(tmp_path / "decisions.1.jsonl")[-1] == "r2"
    assert log.path.read_text() == "fresh\n"


def test_the_lines_of_one_request_are_found_in_both_files(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, rotate=1_500)
    for number in (1, 12, 3, 12, 2):
        log.write([line(number)])
    log.close()
    assert [path.name for path in log_files(tmp_path)] == ["decisions.1.jsonl", "decisions.jsonl"]
    assert [found["request"] for found in lines_of(log_files(tmp_path), "r1")] == ["r1", "r12", "r12"]
    assert log_files(tmp_path / "elsewhere") == []
