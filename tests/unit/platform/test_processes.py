from __future__ import annotations

import subprocess
import sys

import msgspec

from sage_core.platform.processes import is_alive, processor_time, start_ticks, this_process


def test_this_process_lives_under_a_fresh_id() -> None:
    one, two = this_process("worker"), this_process("worker")
    assert one.id != two.id
    assert (one.pid, one.ticks, one.host) == (two.pid, two.ticks, two.host)
    assert is_alive(one) is True


def test_a_recycled_pid_another_boot_and_another_host_are_told_apart() -> None:
    me = this_process("supervisor")
    assert is_alive(msgspec.structs.replace(me, ticks=me.ticks + 1)) is False
    assert is_alive(msgspec.structs.replace(me, boot_id="earlier")) is False
    assert is_alive(msgspec.structs.replace(me, host="elsewhere")) is None


def test_a_dead_process_is_dead_even_before_it_is_waited_for() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    worker = msgspec.structs.replace(this_process("worker"), pid=child.pid, ticks=start_ticks(child.pid) or 0)
    assert is_alive(worker) is True
    child.kill()
    # WNOWAIT leaves the zombie in place.
    import os

    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_alive(worker) is False
    child.communicate()
    assert start_ticks(child.pid) is None


def test_the_processor_time_of_a_process_grows_while_it_computes() -> None:
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    before = processor_time(child.pid)
    while processor_time(child.pid) == before:
        pass
    child.kill()
    child.communicate()
    assert processor_time(child.pid) == ""
