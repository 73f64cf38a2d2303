"""What it costs to wait: a supervisor with one worker process and nothing to do, in processor time and memory."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import msgspec

from sage_bench.home import clean_environment, sage_command
from sage_bench.measures.queue import StoreName, place
from sage_bench.results import Figure, Measured
from sage_bench.suite import Bench
from sage_core import SageError

#: Per cent of a core that a waiting worker may take.
SHARE = 0.5
PATIENCE = 30.0


class Waiting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`sage worker` with one worker kept up, watched from outside."""

    store: StoreName
    seconds: float = 30.0
    #: Until a worker has settled down.
    settle: float = 5.0
    #: A running server, instead of one of the pgserver wheel.
    postgres: str = ""

    def measure(self, bench: Bench) -> Measured:
        """Read `/proc` twice."""
        project = bench.work / "project"
        project.mkdir()
        with place(self.store, bench.work, self.postgres) as (url, facts):
            config = f'[store]\nurl = "{url}"\n\n[queues.default]\nmin = 1\nmax = 1\nidle = 3600.0\n'
            (project / "sage.toml").write_text(config, encoding="utf-8")
            supervisor = subprocess.Popen(
                sage_command(["worker", "--queue", "default"]),
                cwd=project,
                env=clean_environment() | {"SAGE_HOME": str(bench.work / "home")},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            try:
                worker = self._worker(supervisor)
                time.sleep(self.settle)
                before = [cpu(supervisor.pid), cpu(worker)]
                time.sleep(self.seconds)
                shares = [
                    (cpu(pid) - earlier) / self.seconds * 100
                    for pid, earlier in zip((supervisor.pid, worker), before, strict=True)
                ]
                memory = [rss_mib(supervisor.pid), rss_mib(worker)]
            finally:
                supervisor.send_signal(signal.SIGTERM)
                supervisor.communicate(timeout=PATIENCE)
        named = list(zip(("supervisor", "worker"), shares, memory, strict=True))
        figures = [
            Figure(
                name=f"{name}, processor",
                unit="% of a core",
                values=(share,),
                better="lower",
                aim=SHARE if name == "worker" else None,
            )
            for name, share, _ in named
        ]
        figures += [Figure(name=f"{name}, memory", unit="MiB", values=(mib,), better="lower") for name, _, mib in named]
        return Measured(figures=tuple(figures), facts={**facts, "seconds": self.seconds, "memory": "resident set size"})

    def _worker(self, supervisor: subprocess.Popen[bytes]) -> int:
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            if supervisor.poll() is not None:
                output = supervisor.stdout.read().decode() if supervisor.stdout else ""
                raise SageError(f"sage worker ended with status {supervisor.returncode}: {output.strip()[-800:]}")
            found = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text(encoding="utf-8").split()
            if found:
                return int(found[0])
            time.sleep(0.1)
        raise SageError("sage worker started no worker process")


def cpu(pid: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    """Memory of a process that is in use now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
