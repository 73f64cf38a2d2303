"""Who a process is, and whether it still lives: a process id alone may have been given to another."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from sage_core.platform.records import NewWorker, WorkerKind


def this_process(kind: WorkerKind) -> NewWorker:
    """Describe the calling process under a fresh id."""
    pid = os.getpid()
    return NewWorker(
        id=os.urandom(16).hex(),
        kind=kind,
        host=os.uname().nodename,
        boot_id=boot_id(),
        pid=pid,
        ticks=start_ticks(pid) or 0,
    )


def is_alive(worker: NewWorker) -> bool | None:
    """Tell whether the process runs on this machine; None where only its heartbeat can tell."""
    if worker.host != os.uname().nodename:
        return None
    if worker.boot_id != boot_id():
        return False
    ticks = start_ticks(worker.pid)
    if ticks is None:
        return False
    return worker.ticks in (0, ticks)


def boot_id() -> str:
    """The running kernel's id, or empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if it is gone or a zombie, 0 where unknown."""
    try:
        # The command's name stands in parentheses and may hold any character.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return _answers(pid)
    return None if fields[0] in "ZX" else int(fields[19])


def processor_time(pid: int) -> str:
    """The time on the processor that a process has used, as its system words it; empty if that is not known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        with contextlib.suppress(OSError):
            asked = ["ps", "-o", "time=", "-p", str(pid)]
            return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        return ""
    return f"{fields[11]}+{fields[12]}"


def _answers(pid: int) -> int | None:
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0
