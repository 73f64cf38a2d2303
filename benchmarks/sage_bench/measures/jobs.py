"""What a job costs when its work costs nothing: jobs per second through processes and store, and SQL per job."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from sage_bench.home import Done, Home
from sage_bench.measures.rows import STRIDE
from sage_bench.results import Figure, Measured
from sage_bench.suite import Bench
from sage_core import SageError

#: Looking whether another process has committed; how often depends on how long one waits, not on jobs.
POLL = "PRAGMA DATA_VERSION"


class Jobs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row a job. Rates come from the difference between a large and a small run, so start-up is not in them."""

    count: int = 400
    small: int = 50
    #: Worker processes; 0: everything in one process.
    workers: int = 1

    def measure(self, bench: Bench) -> Measured:
        """Time without counting, then count without timing."""
        home = Home(bench.work / "jobs")
        self._run(home, 1, 0)
        rates, walls = [], []
        for turn in range(1, bench.repeat + 1):
            small = self._run(home, self.small, (2 * turn) * STRIDE)
            large = self._run(home, self.count, (2 * turn + 1) * STRIDE)
            rates.append((self.count - self.small) / (large.seconds - small.seconds))
            walls.append(large.seconds)
        low = counted(self._run(home, self.small, STRIDE - 1, sql=True))
        high = counted(self._run(home, self.count, STRIDE - self.count - 1, sql=True))
        extra = {word: (high[word] - low[word]) / (self.count - self.small) for word in high if word != POLL}
        return Measured(
            figures=(
                Figure(name="jobs", unit="jobs/s", values=tuple(rates), better="higher"),
                Figure(name=f"whole command, {self.count} jobs", unit="s", values=tuple(walls), better="lower"),
                Figure(name="SQL statements", unit="per job", values=(sum(extra.values()),), better="lower"),
            ),
            facts={
                "workers": self.workers,
                "per job": {word: round(number, 2) for word, number in sorted(extra.items(), key=lambda i: -i[1])},
                "polls in the whole run, not counted above": high[POLL],
                "how counted": "SQLite's trace callback, in every process of the run",
            },
        )

    def _run(self, home: Home, count: int, start: int, *, sql: bool = False) -> Done:
        where = ("--inline",) if not self.workers else ("--workers", str(self.workers))
        done = home.workflow("jobs", *where, sql=sql, count=count, start=start)
        report: dict[str, Any] = done.report
        if report["steps"]["same"]["partitions"]["run"] != count:
            raise SageError(f"expected {count} jobs, the run had {report['steps']['same']['partitions']}")
        if report["outputs"]["total"] != sum(range(start, start + count)):
            raise SageError(f"the run added up to {report['outputs']['total']}")
        return done


def counted(done: Done) -> Counter[str]:
    """Statements of all processes of a command, by their first word."""
    found: Counter[str] = Counter()
    for heard in done.heard:
        found.update(heard.statements)
    return found
