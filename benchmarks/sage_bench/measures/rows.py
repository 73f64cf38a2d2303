"""What a row costs when its work costs nothing, as a ratio to a plain loop over the same functions."""

from __future__ import annotations

import statistics
import sys
from typing import Literal

import msgspec

from sage_bench.home import Home
from sage_bench.results import Figure, Measured
from sage_bench.suite import Bench
from sage_core import SageError

#: Distance between the numbers of two runs, so that no run finds the results of another.
STRIDE = 10_000_000


class Rows(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Runs the workflow with one row and with many; the difference is what the rows cost."""

    count: int = 100_000
    workflow: Literal["rows", "wide_rows"] = "rows"

    def measure(self, bench: Bench) -> Measured:
        """Interleave a run of one row, a run of all rows, and plain loops."""
        home = Home(bench.work / "rows")
        home.workflow(self.workflow, "--inline", count=1)
        one, many, plain, reports = [], [], [], []
        for turn in range(1, bench.repeat + 1):
            start = turn * STRIDE
            one.append(home.workflow(self.workflow, "--inline", count=1, start=start + self.count).seconds)
            done = home.workflow(self.workflow, "--inline", count=self.count, start=start)
            loop = home.run([sys.executable, "-m", "sage_bench.plain", str(self.count), str(start), "5"]).report
            if done.report["outputs"]["total"] != loop["total"]:
                raise SageError(
                    f"the workflow added up to {done.report['outputs']['total']}, the loop to {loop['total']}"
                )
            many.append(done.seconds)
            plain.append(statistics.median(loop["seconds"]))
            reports.append(done.report)
        inside = [sum(report["steps"][name]["seconds"] for name in ("one", "two", "three")) for report in reports]
        collect = [report["steps"]["total"]["seconds"] for report in reports]
        per_row = 1e6 / self.count

        def ratio(name: str, values: list[float]) -> Figure:
            pairs = zip(values, plain, strict=True)
            return Figure(name=name, unit="×", values=tuple(v / p for v, p in pairs), better="lower", aim=3.0)

        def micros(name: str, values: list[float]) -> Figure:
            return Figure(name=name, unit="µs/row", values=tuple(v * per_row for v in values), better="lower")

        rows = [whole - single for whole, single in zip(many, one, strict=True)]
        return Measured(
            figures=(
                ratio("whole run / plain loop", rows),
                ratio("operators inside jobs / plain loop", inside),
                micros("whole run", rows),
                micros("operators inside jobs", inside),
                micros("collecting to the run", collect),
                micros("plain loop", plain),
            ),
            facts={"rows": self.count, "jobs": _jobs(reports[0])},
        )


def _jobs(report: dict[str, dict[str, dict[str, dict[str, int]]]]) -> int:
    """Jobs of the run: each stage is counted once, by the first of its steps."""
    steps = report["steps"]
    return sum(steps[name]["partitions"]["run"] for name in ("numbers", "one", "total"))
