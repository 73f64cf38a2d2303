"""A gateway with many streams open for long, some ending or left and others in their places: is its memory flat?"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from sage_bench.gateway import processes
from sage_bench.gateway.load import Order
from sage_bench.gateway.processes import Loader, Running
from sage_bench.peers.gateways import TITLES, command_of
from sage_bench.results import Figure, Measured
from sage_bench.suite import Bench
from sage_core import SageError

#: Aims: MiB in all, and MiB a minute: 5 in ten minutes.
MEMORY, RISE = 120.0, 0.5
#: Requests before the streams, so that what is kept of the latest requests is full; SAGE keeps 10,000.
FILLING = 12_000
#: Of the time, the part that is not looked at: the streams open one after another.
WARMING = 0.2
#: Stretches of time that are compared; a whole and even number.
STRETCHES = 20


class OpenStreams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold them open."""

    gateway: str = "sage"
    streams: int = 1_000
    seconds: float = 600.0
    #: Events of a stream at most: one comes each second.
    events: int = 120
    #: Requests beforehand.
    filling: int = FILLING
    cache: str = "~/.cache/sage-bench/peers"

    def measure(self, bench: Bench) -> Measured:
        """Once: `repeat` says nothing here, as what repeats is the time."""
        cores = sorted(os.sched_getaffinity(0))
        with ExitStack() as stack:
            upstream = stack.enter_context(processes.upstream(cores[0]))
            load = stack.enter_context(processes.loader(cores[0]))
            command, environ, model = command_of(
                self.gateway, bench.work, upstream, cache=Path(self.cache).expanduser()
            )
            ready = stack.enter_context(processes.gateway(command, environ, bench.work, cores[-1], load, model))
            self._fill(bench, ready, load)
            samples: list[tuple[float, float]] = []
            began = time.monotonic()
            told = 0.0

            def look() -> None:
                nonlocal told
                now = time.monotonic() - began
                samples.append((now, ready.memory()))
                if now >= told + self.seconds / 30:
                    told = now
                    bench.say(f"{now:.0f} of {self.seconds:.0f} s: {samples[-1][1]:.1f} MiB")

            used = ready.cpu()
            order = Order(
                port=ready.port,
                model=model,
                kind="soak",
                connections=self.streams,
                events=self.events,
                seconds=self.seconds,
                seed=bench.seed,
            )
            found = load(order, look)
            used = ready.cpu() - used
        settled = [(at, mib) for at, mib in samples if at >= self.seconds * WARMING]
        if len(settled) < STRETCHES:
            raise SageError(f"only {len(settled)} looks at the memory: {self.seconds:g} s are too few")
        title = TITLES[self.gateway]
        return Measured(
            figures=(
                Figure(
                    name=f"{title}: memory with {self.streams:,} streams open",
                    unit="MiB",
                    values=tuple(mib for _, mib in settled),
                    statistic="max",
                    better="lower",
                    over="looks",
                    aim=MEMORY,
                ),
                Figure(
                    name=f"{title}: rise of its memory",
                    unit="MiB/min",
                    values=tuple(rises(settled)),
                    better="lower",
                    over="pairs of times",
                    aim=RISE,
                ),
                Figure(name=f"{title}: fewest streams open", unit="", values=(float(found.fewest),), better="higher"),
                Figure(name=f"{title}: streams that ended", unit="", values=(float(found.good),)),
                Figure(name=f"{title}: streams that were left", unit="", values=(float(found.left),)),
                Figure(
                    name=f"{title}: streams that broke", unit="", values=(float(found.bad),), better="lower", aim=0.0
                ),
                Figure(name=f"{title}: events", unit="/s", values=(found.events / found.seconds,)),
                Figure(name=f"{title}: of its core in use", unit="%", values=(used / found.seconds * 100,)),
            ),
            facts={"seconds": self.seconds, "requests before": self.filling, "events a stream, at most": self.events},
            remarks=(
                f"Looked at twice a second after the first {WARMING:.0%} of the time; the rise is that between each of "
                "ten stretches and the one half of the remaining time later.",
                *([f"first stream that broke: {found.problem}"] if found.problem else []),
            ),
        )

    def _fill(self, bench: Bench, gateway: Running, load: Loader) -> None:
        done = 0
        while done < self.filling:
            done += load(Order(port=gateway.port, kind="closed", seconds=1.0)).good
            bench.say(f"{done:,} requests before, {gateway.memory():.1f} MiB")


def rises(samples: Sequence[tuple[float, float]]) -> list[float]:
    """MiB a minute between the mean of each stretch of the first half and that of its counterpart in the second."""
    size = len(samples) // STRETCHES
    stretches = [samples[at * size : (at + 1) * size] for at in range(STRETCHES)]
    times = [statistics.fmean(at for at, _ in stretch) for stretch in stretches]
    means = [statistics.fmean(mib for _, mib in stretch) for stretch in stretches]
    half = STRETCHES // 2
    return [60 * (means[n + half] - means[n]) / (times[n + half] - times[n]) for n in range(half)]
