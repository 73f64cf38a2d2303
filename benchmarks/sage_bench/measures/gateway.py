"""Gateways before one fake upstream, each on one core: requests, latency, events and memory, in turns."""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from sage_bench.gateway import processes
from sage_bench.gateway.load import Order
from sage_bench.gateway.processes import Loader, Running
from sage_bench.peers.gateways import PACKAGES, TITLES, command_of
from sage_bench.results import Figure, Measured
from sage_bench.suite import Bench
from sage_core import SageError

#: Aims of the suite.
CEILING, LITELLM, ADDED_P50, ADDED_P99, EVENTS, MEMORY = 0.7, 15.0, 1.0, 5.0, 20_000.0, 120.0


class Gateways(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Load each of them."""

    gateways: tuple[str, ...] = ("bare", "sage")
    #: Connections of the closed loops.
    connections: int = 32
    #: Seconds of each measurement.
    seconds: float = 3.0
    #: Events of a stream.
    events: int = 200
    #: Streams held open while memory is read, and for how many seconds.
    streams: int = 1_000
    held: float = 5.0
    #: Where the environments of others are kept between runs.
    cache: str = "~/.cache/sage-bench/peers"

    def measure(self, bench: Bench) -> Measured:
        """All of it, `repeat` times, gateways in turns."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise SageError("the gateway needs a core of its own: this process may use one only")
        values: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in self.gateways}
        with ExitStack() as stack:
            upstream = stack.enter_context(processes.upstream(cores[0]))
            load = stack.enter_context(processes.loader(cores[0]))
            ready = {}
            for name in self.gateways:
                folder = bench.work / name
                folder.mkdir()
                command, environ, model = command_of(name, folder, upstream, cache=Path(self.cache).expanduser())
                ready[name] = stack.enter_context(processes.gateway(command, environ, folder, cores[-1], load, model))
            direct: dict[str, list[float]] = defaultdict(list)
            for turn in range(bench.repeat):
                self._direct(upstream, load, direct)
                for name, gateway in ready.items():
                    self._turn(gateway, upstream, load, values[name], bench.seed + turn)
            memory = {name: self._memory(gateway, load) for name, gateway in ready.items()}
        return Measured(
            figures=(
                Figure(
                    name="upstream asked directly: requests", unit="/s", values=tuple(direct["rate"]), better="higher"
                ),
                Figure(
                    name="upstream asked directly: events", unit="/s", values=tuple(direct["events"]), better="higher"
                ),
                *self._figures(values, memory),
            ),
            facts={"connections": self.connections, "events a stream": self.events, "packages": PACKAGES},
            remarks=(
                "Upstream and load share one core, the gateway has another; added latency is that of the gateway less "
                "that of the upstream asked directly, at the same rate in the same turn.",
                "Ratios are judged by what a gateway does in a second of processor time, which other work on the "
                "machine changes least.",
                *({f"{TITLES[name]}: {gateway.problem}" for name, gateway in ready.items() if gateway.problem}),
            ),
        )

    def _direct(self, upstream: int, load: Loader, values: dict[str, list[float]]) -> None:
        order = Order(port=upstream, kind="closed", connections=self.connections, seconds=self.seconds / 2)
        closed = load(order)
        values["rate"].append(closed.good / closed.seconds)
        streams = load(msgspec.structs.replace(order, kind="streams", events=self.events))
        values["events"].append(streams.events / streams.seconds)

    def _turn(self, gateway: Running, upstream: int, load: Loader, values: dict[str, list[float]], seed: int) -> None:
        used = gateway.cpu()
        closed = load(
            Order(
                port=gateway.port,
                model=gateway.model,
                kind="closed",
                connections=self.connections,
                seconds=self.seconds,
            )
        )
        rate = closed.good / closed.seconds
        values["rate"].append(rate)
        used = gateway.cpu() - used
        values["cpu"].append(used / closed.seconds * 100)
        values["per_cpu"].append(closed.good / max(used, 0.01))
        alone = load(
            Order(port=gateway.port, model=gateway.model, kind="closed", connections=1, seconds=self.seconds / 2)
        )
        values["alone"].append(_percentile(alone.latencies, 50))
        order = Order(
            port=gateway.port, model=gateway.model, kind="open", rate=rate / 2, seconds=self.seconds, seed=seed
        )
        through, direct = load(order), load(msgspec.structs.replace(order, port=upstream, model="bench"))
        for percent in (50, 99):
            added = _percentile(through.latencies, percent) - _percentile(direct.latencies, percent)
            values[f"added{percent}"].append(added)
        used = gateway.cpu()
        streams = load(
            Order(
                port=gateway.port,
                model=gateway.model,
                kind="streams",
                connections=self.connections,
                events=self.events,
                seconds=self.seconds,
            )
        )
        values["events"].append(streams.events / streams.seconds)
        values["events_per_cpu"].append(streams.events / max(gateway.cpu() - used, 0.01))
        gateway.problem = gateway.problem or closed.problem or alone.problem or through.problem or streams.problem
        values["bad"].append(float(closed.bad + alone.bad + through.bad + streams.bad))

    def _memory(self, gateway: Running, load: Loader) -> tuple[float, float, int]:
        """MiB before and during, and the streams that were alive."""
        before = gateway.memory()
        order = Order(
            port=gateway.port,
            model=gateway.model,
            kind="hold",
            connections=self.streams,
            events=100_000,
            seconds=self.held,
        )
        during = before

        def look() -> None:
            nonlocal during
            during = max(during, gateway.memory())

        found = load(order, look)
        return before, during, found.good

    def _figures(
        self, values: dict[str, dict[str, list[float]]], memory: dict[str, tuple[float, float, int]]
    ) -> Iterator[Figure]:
        for name, found in values.items():
            title, ours = TITLES[name], name == "sage"

            def figure(what: str, unit: str, key: str, better: Any, aim: float | None = None) -> Figure:
                return Figure(name=f"{title}: {what}", unit=unit, values=tuple(found[key]), better=better, aim=aim)  # noqa: B023

            yield figure("requests", "/s", "rate", "higher")
            yield figure("of its core in use", "%", "cpu", "")
            yield figure("requests a second of processor", "/s", "per_cpu", "higher")
            yield figure("alone, p50", "ms", "alone", "lower")
            yield figure("added at half its load, p50", "ms", "added50", "lower", ADDED_P50 if ours else None)
            yield figure("added at half its load, p99", "ms", "added99", "lower", ADDED_P99 if ours else None)
            yield figure("events of streams", "/s", "events", "higher")
            yield figure("events a second of processor", "/s", "events_per_cpu", "higher", EVENTS if ours else None)
            yield figure("answers that were none", "", "bad", "lower", 0.0 if ours else None)
            before, during, alive = memory[name]
            yield Figure(name=f"{title}: memory before", unit="MiB", values=(before,), better="lower")
            yield Figure(
                name=f"{title}: memory with {alive:,} of {self.streams:,} streams open",
                unit="MiB",
                values=(during,),
                better="lower",
                aim=MEMORY if ours else None,
            )
        for other, aim in (("bare", CEILING), ("litellm", LITELLM), ("vllm-router", None)):
            if {"sage", other} <= set(values):
                for key, what, judged in (
                    ("per_cpu", "requests a second of processor", aim),
                    ("rate", "requests", None),
                    ("events_per_cpu", "events a second of processor", None),
                ):
                    pairs = zip(values["sage"][key], values[other][key], strict=True)
                    yield Figure(
                        name=f"SAGE / {TITLES[other]}: {what}",
                        unit="×",
                        values=tuple(ours / theirs for ours, theirs in pairs),
                        better="higher",
                        aim=judged,
                    )


def _percentile(values: Sequence[float], percent: int) -> float:
    if len(values) < 2:
        return values[0] if values else float("nan")
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
