"""Gateways before one fake upstream, each on one core: requests, latency, events and memory, in turns."""

from __future__ import annotations

import os
import select
import socket
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from sage_bench.gateway.load import Found, Order
from sage_bench.home import clean_environment, sage_command
from sage_bench.peers.environments import environment
from sage_bench.results import Figure, Measured
from sage_bench.suite import Bench
from sage_core import SageError

#: What each is installed from; the others run in this environment.
PACKAGES = {"litellm": ["litellm[proxy]==1.106.*"], "vllm-router": ["vllm-router"]}
#: What the figures call it.
TITLES = {
    "bare": "bare Starlette proxy",
    "sage": "SAGE",
    "litellm": "LiteLLM",
    "vllm-router": "vllm-router (Rust)",
}
#: Seconds to start.
PATIENCE = 90.0
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
            upstream = stack.enter_context(_upstream(cores[0]))
            load = stack.enter_context(_loader(cores[0]))
            ready = {}
            for name in self.gateways:
                folder = bench.work / name
                folder.mkdir()
                command, environ, model = self._command(name, folder, upstream)
                ready[name] = stack.enter_context(_gateway(command, environ, folder, cores[-1], load, model))
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

    def _command(
        self, name: str, folder: Path, upstream: int
    ) -> tuple[Callable[[int], list[str]], dict[str, str], str]:
        """How it is started on a port, with what in its environment, and what it calls the model."""
        url = f"http://127.0.0.1:{upstream}"
        environ = clean_environment()
        if name == "bare":
            return (
                lambda port: [sys.executable, "-m", "sage_bench.peers.starlette_proxy", str(port), url],
                environ,
                "bench",
            )
        if name == "sage":
            (folder / "sage.toml").write_text(SAGE.format(url=url), encoding="utf-8")
            environ["SAGE_HOME"] = str(folder / "home")
            return lambda port: sage_command(["serve", "--port", str(port)]), environ, "bench"
        if name not in PACKAGES:
            raise SageError(f"no gateway is called {name!r}; known: {', '.join(TITLES)}")
        tools = environment(Path(self.cache).expanduser(), name, PACKAGES[name]).parent
        if name == "litellm":
            config = folder / "config.yaml"
            config.write_text(LITELLM_CONFIG.format(url=url), encoding="utf-8")
            # What its documentation names for speed (docs/proxy/prod): errors only, one process a core.
            # Like SAGE's here it asks for no key.
            environ["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"
            environ |= {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
            start = [str(tools / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--num_workers", "1"]
            return lambda port: [*start, "--port", str(port)], environ, "bench"
        start = [str(tools / "vllm-router"), "--worker-urls", url, "--policy", "round_robin", "--host", "127.0.0.1"]
        return lambda port: [*start, "--port", str(port), "--log-level", "error"], environ, "bench"


SAGE = """\
[models.bench]
backend = "openai"
base_url = "{url}/v1"
sequences = 4096
"""
LITELLM_CONFIG = """\
model_list:
  - model_name: bench
    litellm_params:
      model: openai/bench
      api_base: {url}/v1
      api_key: none
litellm_settings:
  set_verbose: false
  drop_params: true
  request_timeout: 600
"""


class Running:
    """A gateway that runs."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, model: str) -> None:
        self._process = process
        self.port = port
        self.model = model
        #: What was wrong with the first answer that was none.
        self.problem = ""

    def cpu(self) -> float:
        """Seconds of processor it has used, with its children."""
        ticks = 0
        for pid in _family(self._process.pid):
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """MiB resident, with its children."""
        kib = 0
        for pid in _family(self._process.pid):
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            kib += int(status.partition("VmRSS:")[2].split()[0])
        return kib / 1024


class Loader:
    """The process that makes load."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, order: Order, meanwhile: Callable[[], None] | None = None) -> Found:
        """Carry an order out; `meanwhile` is called twice a second until it is."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(msgspec.json.encode(order).decode() + "\n")
        self._process.stdin.flush()
        while meanwhile is not None and not select.select([self._process.stdout], [], [], 0.5)[0]:
            meanwhile()
        line = self._process.stdout.readline()
        if not line:
            raise SageError(f"the load generator ended with status {self._process.wait()}")
        return msgspec.json.decode(line, type=Found)


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    except OSError:
        return []
    return [pid, *(member for child in children for member in _family(int(child)))]


def _percentile(values: Sequence[float], percent: int) -> float:
    if len(values) < 2:
        return values[0] if values else float("nan")
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _pinned(core: int, command: Sequence[str]) -> list[str]:
    return ["taskset", "-c", str(core), *command]


@contextmanager
def _ended(process: subprocess.Popen[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()


@contextmanager
def _upstream(core: int) -> Iterator[int]:
    command = _pinned(core, [sys.executable, "-m", "sage_bench.gateway.upstream"])
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with _ended(process):
        assert process.stdout
        yield int(process.stdout.readline())


@contextmanager
def _loader(core: int) -> Iterator[Loader]:
    command = _pinned(core, [sys.executable, "-m", "sage_bench.gateway.load"])
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with _ended(process):
        yield Loader(process)


@contextmanager
def _gateway(
    command: Callable[[int], list[str]], environ: dict[str, str], folder: Path, core: int, load: Loader, model: str
) -> Iterator[Running]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "output.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            _pinned(core, command(port)),
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    with _ended(process):
        until = time.monotonic() + PATIENCE
        while True:
            if _answers(port) and load(Order(port=port, model=model, kind="closed", connections=1, seconds=0.2)).good:
                break
            if process.poll() is not None or time.monotonic() > until:
                said = log.read_text(encoding="utf-8", errors="replace")[-1_000:]
                raise SageError(f"{' '.join(command(port)[:4])} does not answer: {said}")
            time.sleep(0.5)
        yield Running(process, port, model)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
