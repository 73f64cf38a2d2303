"""Other queues on the same PostgreSQL, each in an environment of its own, in turns with SAGE."""

from __future__ import annotations

import functools
import uuid
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec

from sage_bench import postgres
from sage_bench.crew import Crew, crew, fill
from sage_bench.drain import Order
from sage_bench.peers.environments import environment
from sage_bench.results import Figure, Measured
from sage_bench.suite import Bench
from sage_core.platform.store import JobStore

SCRIPTS = Path(__file__).parent.parent / "peers"
#: What each is installed from, and its settings: argument of its script → what it says.
PACKAGES = {"procrastinate": ["procrastinate==3.10.*", "psycopg[binary]"], "dbos": ["dbos==3.4.*", "psycopg[binary]"]}
#: procrastinate documents more worker processes and `concurrency` as the ways to more jobs a second
#: (howto/production/concurrency); DBOS has a queue without limits, polled every second unless told otherwise
#: (python/reference/queues): the rates leave out the wait for the first poll.
SETTINGS = {
    "procrastinate": [
        ("1", 1, "concurrency 1, 1 process"),
        ("30", 1, "concurrency 30, 1 process"),
        ("1", 2, "concurrency 1, 2 processes"),
        ("30", 2, "concurrency 30, 2 processes"),
    ],
    "dbos": [("0.1", 1, "polled every 0.1 s, 1 process"), ("0.1", 2, "polled every 0.1 s, 2 processes")],
}
SAGE = [(1, 1), (16, 1), (128, 1), (128, 2)]
#: How many times as many jobs a second SAGE aims for.
TIMES = 10


class Peers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Drain queues of jobs that do nothing."""

    jobs: int = 1_000
    sage_jobs: int = 6_000
    #: A running server, instead of one of the pgserver wheel.
    postgres: str = ""
    #: Where the environments are kept between runs.
    cache: str = "~/.cache/sage-bench/peers"

    def measure(self, bench: Bench) -> Measured:
        """Every setting of every queue once a turn."""
        rates: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in ("SAGE", *SETTINGS)}
        with ExitStack() as stack:
            server = stack.enter_context(postgres.server(bench.work / "pg", self.postgres))
            rounds = [("SAGE", *each) for each in self._sage(stack, server)]
            for name in SETTINGS:
                rounds += [(name, *each) for each in self._peer(stack, server, name)]
            for turn in range(bench.repeat + 1):
                for name, setting, go in rounds:
                    rate = go()
                    # The first turn warms everybody up.
                    if turn:
                        rates[name][setting].append(rate)
            facts = {**postgres.settings(server), "packages": PACKAGES}
        figures = [
            Figure(name=f"{name}, {setting}", unit="jobs/s", values=tuple(found), better="higher")
            for name, settings in rates.items()
            for setting, found in settings.items()
        ]
        best = {name: [max(turn) for turn in zip(*settings.values(), strict=True)] for name, settings in rates.items()}
        figures += [
            Figure(
                name=f"SAGE at its best / {name} at its best",
                unit="×",
                values=tuple(ours / theirs for ours, theirs in zip(best["SAGE"], best[name], strict=True)),
                better="higher",
                aim=TIMES,
            )
            for name in SETTINGS
        ]
        return Measured(figures=tuple(figures), facts=facts)

    def _sage(self, stack: ExitStack, server: str) -> list[tuple[str, Callable[[], float]]]:
        url = stack.enter_context(postgres.schema(server, "sage_bench_peers"))
        store = stack.enter_context(JobStore.open(url))
        hands = stack.enter_context(crew(url, max(workers for _, workers in SAGE)))

        def go(batch: int, workers: int) -> float:
            jobs = self.sage_jobs if batch > 1 else self.jobs
            return hands.drain(Order(side="sage", queue=fill(store, jobs), batch=batch), workers, jobs).rate

        return [
            (f"batch {batch}, {workers} worker{'s' if workers > 1 else ''}", functools.partial(go, batch, workers))
            for batch, workers in SAGE
        ]

    def _peer(self, stack: ExitStack, server: str, name: str) -> list[tuple[str, Callable[[], float]]]:
        python = environment(Path(self.cache).expanduser(), name, PACKAGES[name])
        url = stack.enter_context(postgres.database(server, f"sage_bench_{name}"))

        def go(argument: str, processes: int) -> float:
            hands = Crew([str(python), str(SCRIPTS / f"{name}_jobs.py"), url, argument], processes)
            try:
                return hands.drain_filled(uuid.uuid4().hex, processes, self.jobs).rate
            finally:
                hands.close()

        return [(called, functools.partial(go, argument, processes)) for argument, processes, called in SETTINGS[name]]
