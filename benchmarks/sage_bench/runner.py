"""Runs the cases of a suite, one after another, each in a process of its own."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from sage_bench import surroundings
from sage_bench.child import Answer, Order
from sage_bench.results import Line, Measured
from sage_bench.suite import PROGRESS, Case, Suite, measure_class
from sage_core import UnknownName


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for."""

    suite: Suite
    #: As the command line names it, for the command that measures again.
    named: str
    seed: int = 0
    #: 0: as the suite says.
    repeat: int = 0
    #: Name of a data set → its folder.
    data: Mapping[str, Path] = {}
    #: Cases to run; all when empty.
    only: Sequence[str] = ()
    #: Whether cases run that a suite marks as optional.
    optional: bool = False
    #: Of cases that name a store, only those on this one.
    store: str | None = None
    #: Options that replace those of every case whose measure has them.
    given: Mapping[str, Any] = {}

    def cases(self) -> dict[str, Case]:
        """The chosen cases, in the suite's order."""
        for name in self.only:
            if name not in self.suite.cases:
                raise UnknownName("case", name, list(self.suite.cases))
        return {
            name: msgspec.structs.replace(case, options={**case.options, **self._for(case)})
            for name, case in self.suite.cases.items()
            if (name in self.only if self.only else self.optional or not case.optional)
            and self.store in (None, case.options.get("store", self.store))
        }

    def _for(self, case: Case) -> dict[str, Any]:
        known = measure_class(case.measure).__struct_fields__
        # A list of workers is for the measures that take one.
        return {
            name: value
            for name, value in self.given.items()
            if name in known and isinstance(value, list) <= (name == "batches" or "batches" in known)
        }


def run(plan: Plan, watch: Callable[[int, int, str], None]) -> Iterator[Line]:
    """Yield a line as each case ends; `watch(number, of, name)` hears when one starts."""
    cases = plan.cases()
    for number, (name, case) in enumerate(cases.items(), 1):
        watch(number, len(cases), name)
        yield _line(plan, name, case)


def _line(plan: Plan, name: str, case: Case) -> Line:
    repeat = plan.repeat or case.repeat or plan.suite.repeat
    data = plan.data.get(case.data)
    machine = surroundings.machine()
    begun, started = datetime.now(UTC), time.monotonic()
    if case.data and data is None:
        answer = Answer(error=f"not measured: it needs the data set {case.data!r} (--{case.data} PATH, or --data PATH)")
    else:
        answer = _ask(
            Order(
                measure=case.measure,
                options=case.options,
                seed=plan.seed,
                repeat=repeat,
                data=str(data.absolute()) if data is not None else "",
            )
        )
    measured = answer.measured or Measured(figures=())
    machine["load_1min_after"] = round(os.getloadavg()[0], 2)
    return Line(
        suite=plan.suite.suite,
        case=name,
        seed=plan.seed,
        repeat=repeat,
        commit=surroundings.commit(),
        started_at=begun.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 3),
        python=platform.python_version(),
        packages=surroundings.packages(),
        machine=machine,
        rerun=(_rerun(plan, name, case, repeat),),
        figures=measured.figures,
        facts=measured.facts,
        remarks=measured.remarks,
        error=answer.error,
    )


def _ask(order: Order) -> Answer:
    with tempfile.TemporaryFile() as output:
        command = [sys.executable, "-m", "sage_bench.child"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.PIPE)
        assert child.stdin
        assert child.stderr
        with child.stdin as stdin:
            stdin.write(msgspec.json.encode(order))
        said: deque[str] = deque(maxlen=100)
        with child.stderr as stderr:
            for raw in stderr:
                line = raw.decode("utf-8", "replace")
                if line.startswith(PROGRESS):
                    sys.stderr.write(line.removeprefix(PROGRESS))
                else:
                    said.append(line)
        if status := child.wait():
            return Answer(error=f"its process ended with status {status}: {''.join(said)[-1500:]}")
        output.seek(0)
        return msgspec.json.decode(output.read(), type=Answer)


def _rerun(plan: Plan, name: str, case: Case, repeat: int) -> str:
    words = ["sage", "bench", "run", plan.named, "--case", name, "--seed", str(plan.seed), "--repeat", str(repeat)]
    for option, value in plan.given.items():
        # A URL may hold a password.
        words += [f"--{option}", ",".join(map(str, value)) if isinstance(value, list) else "URL"]
    if case.data and case.data in plan.data:
        words += [f"--{case.data}", str(plan.data[case.data])]
    return shlex.join(words)
