"""Works on a disk that is full again and again: run inside a mount namespace of its own, it may mount what it likes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from sage_core.common.errors import StoreError
from sage_core.platform.store import JobStore
from tests.chaos.history import History, check
from tests.chaos.work import Work, submit

#: KiB of the disk at first, and by which it grows when it is full.
SMALL, MORE = 500, 300
RUNS, PARTS = 6, 20


def main(folder: Path) -> None:
    """Fill the disk, make room, go on, until all is done; then print what the checker says."""
    disk = folder / "disk"
    disk.mkdir()
    size = SMALL
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], check=True)
    history = History(folder / "history")
    times: list[float] = []
    messages: set[str] = set()
    with JobStore.open(f"sqlite:///{disk}/sage.db") as store:
        work = Work(store, history, "only", pad=12_000)
        todo = [f"run-{number}" for number in range(RUNS)]
        plan = dict.fromkeys(todo, PARTS)
        since = 0.0
        while todo:
            try:
                if todo[0] not in {run.id for run in store.runs()}:
                    submit(store, todo[0], PARTS)
                # A job that met the full disk is still ours, and its completion is tried again under the same fence.
                for job in [job for job in store.jobs(todo[0]) if job.state == "running"]:
                    work.attempt(job)
                work.drain(todo[0])
                todo.pop(0)
            except StoreError as error:
                messages.add(error.args[1].partition(" (")[0])
                size += MORE
                subprocess.run(["mount", "-o", f"remount,size={size}k", disk], check=True)
                since = time.monotonic()
                submitted = history.lines()[-1].at
            if since and history.lines()[-1].at > submitted:
                times.append(time.monotonic() - since)
                since = 0.0
        verdict = check(history.lines(), store, plan)
        found = {"verdict": verdict, "times": times, "messages": sorted(messages), "faults": (size - SMALL) // MORE}
        print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
