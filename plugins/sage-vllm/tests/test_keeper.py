"""What is kept ends with whoever started it, however that dies, and so does all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sage_vllm import keeper

from .conftest import gone, until

#: A program with a child; both write their process ids. It may leave SIGTERM alone.
PROGRAM = """
import os, signal, subprocess, sys, time
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[1] + ".tmp", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".tmp", sys.argv[1])
if sys.argv[2] == "ends":
    sys.exit(7)
time.sleep(600)
"""
#: Somebody who starts the keeper and then waits to be killed.
STARTER = """
import subprocess, sys, time
kept = subprocess.Popen([sys.executable, "-I", *sys.argv[1:]], stdin=subprocess.PIPE, start_new_session=True)
print(kept.pid, flush=True)
time.sleep(600)
"""


def command(note: Path, how: str, grace: str = "5") -> list[str]:
    return [keeper.__file__, grace, "1000000", "none.log", sys.executable, "-c", PROGRAM, str(note), how]


def pids(note: Path) -> list[int]:
    """Those that the program wrote down."""
    until(note.exists)
    return [int(word) for word in note.read_text().split()]


@pytest.mark.parametrize(("how", "grace"), [("stays", "5"), ("deaf", "0.2")])
def test_a_closed_pipe_ends_the_program_and_its_children(tmp_path: Path, how: str, grace: str) -> None:
    note = tmp_path / "note"
    line = [sys.executable, "-I", *command(note, how, grace)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True) as kept:
        program, child = pids(note)
        assert not gone(program)
        assert kept.stdin is not None
        kept.stdin.close()
        assert kept.wait(10) == -signal.SIGKILL
        until(lambda: gone(program, child))


def test_a_killed_starter_takes_everything_with_it(tmp_path: Path) -> None:
    note = tmp_path / "note"
    line = [sys.executable, "-c", STARTER, *command(note, "stays")]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as starter:
        assert starter.stdout is not None
        kept = int(starter.stdout.readline())
        program, child = pids(note)
        starter.kill()
        until(lambda: gone(kept, program, child))


def test_a_killed_keeper_takes_the_program_with_it(tmp_path: Path) -> None:
    note = tmp_path / "note"
    line = [sys.executable, "-I", *command(note, "stays")]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True) as kept:
        program, child = pids(note)
        os.kill(kept.pid, signal.SIGKILL)
        until(lambda: gone(program))
        # Only the group knows the child now.
        os.killpg(kept.pid, signal.SIGKILL)
        until(lambda: gone(child))


def test_a_program_that_ends_leaves_no_child_and_its_status(tmp_path: Path) -> None:
    note = tmp_path / "note"
    line = [sys.executable, "-I", *command(note, "ends")]
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as kept:
        assert kept.wait(10) == -signal.SIGKILL
        assert kept.stderr is not None
        assert kept.stderr.read().strip() == "the program ended with status 7"
    until(lambda: gone(*pids(note)))


def test_a_log_that_grows_begins_anew_and_what_was_there_is_kept_once(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    talks = "import time, sys\nfor n in range(600):\n    print(f'{n:0>99}', flush=True)\n    time.sleep(0.002)\n"
    line = [sys.executable, "-I", keeper.__file__, "1", "10000", str(log), sys.executable, "-c", talks]
    with (
        log.open("ab") as written,
        subprocess.Popen(line, stdin=subprocess.PIPE, stderr=written, start_new_session=True) as kept,
    ):
        kept.wait(20)
    before = tmp_path / "engine.before.log"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engine.before.log", "engine.log"]
    assert before.stat().st_size > 10_000
    # 60,000 bytes in all, of which most are gone.
    assert log.stat().st_size + before.stat().st_size < 55_000
    lines = log.read_text().splitlines()
    assert int(lines[-1]) == 599
    # No hole where the file was cut: whoever writes appends.
    assert b"\0" not in log.read_bytes()
