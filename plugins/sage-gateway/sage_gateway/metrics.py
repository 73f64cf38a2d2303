"""``/metrics``: what the control plane decided and what its engines did, as Prometheus text.

Counted from decisions and inputs as they pass, and read from the manager when somebody asks: nothing here is read by a
decision. Where vLLM has a metric, its name is used, so that dashboards made for vLLM show a gateway too.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sage_core import SECOND, Request
from sage_core.serving import Decided, Driver, Instant

if TYPE_CHECKING:
    from prometheus_client.core import Metric

#: Values that a label takes before every other one is called OTHER: tenants and models are named by clients.
MOST, OTHER = 100, "other"

_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640)
_BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2.5, 5)
#: Histograms that OpenTelemetry's conventions for generative AI name otherwise.
_GEN_AI = {
    "vllm:time_to_first_token_seconds": "gen_ai_server_time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds": "gen_ai_server_time_per_output_token_seconds",
    "vllm:e2e_request_latency_seconds": "gen_ai_server_request_duration_seconds",
}


class Capped:
    """The first names are themselves, all others are one."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._names: set[str] = set()

    def __call__(self, name: str) -> str:
        if name in self._names:
            return name
        if len(self._names) >= self._most:
            return OTHER
        self._names.add(name)
        return name


class Metrics:
    """The metrics of one gateway, in a registry of its own."""

    def __init__(self) -> None:
        # Imported when a gateway is made: no other command pays for it.
        prometheus = importlib.import_module("prometheus_client")
        self._registry: Any = prometheus.CollectorRegistry()
        self._text = prometheus.generate_latest
        self._driver: Driver | None = None
        self._model, self._tenant = Capped(), Capped()
        #: Histograms that are shown under a second name too.
        self._named_twice: list[Any] = []

        # Each is the function from labels to what is counted, which takes longer to find than to count.
        def counter(name: str, about: str, *labels: str) -> Any:
            return functools.cache(prometheus.Counter(name, about, labels, registry=self._registry).labels)

        def histogram(name: str, about: str, *labels: str, buckets: Sequence[float] = _SECONDS) -> Any:
            made = prometheus.Histogram(name, about, labels, registry=self._registry, buckets=buckets)
            if name in _GEN_AI:
                self._named_twice.append(made)
            return functools.cache(made.labels)

        self._ttft = histogram("vllm:time_to_first_token_seconds", "From arrival to the first token.", "model_name")
        self._itl = histogram(
            "vllm:inter_token_latency_seconds",
            "Mean seconds between output tokens, as the control plane follows it for each engine.",
            "model_name",
            buckets=_BETWEEN,
        )
        self._e2e = histogram("vllm:e2e_request_latency_seconds", "From arrival to the end.", "model_name")
        self._queued = histogram("vllm:request_queue_time_seconds", "From arrival to dispatch.", "model_name")
        self._prompt = counter("vllm:prompt_tokens", "Input tokens of answered requests.", "model_name")
        self._generation = counter("vllm:generation_tokens", "Output tokens of answered requests.", "model_name")
        self._success = counter("vllm:request_success", "Requests answered.", "model_name")
        self._tokens = counter("sage_tenant_tokens", "Tokens that each tenant used.", "tenant", "direction")
        self._decisions = counter(
            "sage_decisions", "Lines of the decision log.", "model", "service_class", "policy", "outcome"
        )
        self._sheds = counter(
            "sage_sheds", "Requests refused or given up under load.", "model", "service_class", "outcome"
        )
        self._missed = counter(
            "sage_ttft_missed", "Answers whose first token came after its SLO.", "model", "service_class"
        )
        self._retries = counter("sage_retries", "Attempts that failed and were made again elsewhere.", "model")
        self._broken = counter("sage_attempts_broken", "Attempts that engines failed.", "cause")
        self._cold = histogram("sage_cold_start_seconds", "From starting an engine until it is ready.", "model")
        self._lost = counter("sage_engines_lost", "Engines that did not open or died.", "model")
        self._error = histogram(
            "sage_prediction_ratio",
            "Engine-seconds that a dispatch took over those predicted for it.",
            "model",
            buckets=(0.1, 0.25, 0.5, 0.75, 0.9, 1.1, 1.33, 2, 4, 10),
        )
        self._registry.register(self)

    def open(self, driver: Driver) -> None:
        """Read queues and engines from this driver from here on."""
        self._driver = driver

    # ------------------------------------------------------------ counted as it passes

    def observe(self, decisions: Sequence[tuple[Request, Decided]]) -> None:
        """Count lines of the decision log."""
        for _, line in decisions:
            self._line(line)

    def _line(self, line: Decided) -> None:
        model, service = self._model(line.model), line.service_class
        self._decisions(model, service, line.policy or "default", line.outcome).inc()
        if line.outcome in ("rejected", "shed", "unavailable"):
            self._sheds(model, service, line.outcome).inc()
        if line.attempts:
            self._retries(model).inc(line.attempts)
        if not line.engine:
            return
        wait = line.wait / SECOND
        self._queued(model).observe(wait)
        if line.ttft:
            self._ttft(model).observe(wait + line.ttft)
            if line.deadline is not None and line.kind == "generate" and (wait + line.ttft) * SECOND > line.deadline:
                self._missed(model, service).inc()
        if line.outcome == "done":
            self._success(model).inc()
            self._e2e(model).observe(wait + line.actual)
            if line.predicted:
                self._error(model).observe(line.actual / line.predicted)

    def used(self, tenant: str, model: str, tokens_in: int, tokens_out: int) -> None:
        """Count the tokens of an answer."""
        name, who = self._model(model), self._tenant(tenant)
        self._prompt(name).inc(tokens_in)
        self._generation(name).inc(tokens_out)
        self._tokens(who, "input").inc(tokens_in)
        self._tokens(who, "output").inc(tokens_out)

    def record(self, instant: Instant) -> None:
        """Count what engines did; called with each instant before it is applied."""
        for event in instant.inputs:
            kind = type(event).__name__
            if kind in _COUNTED:
                self._event(kind, event, instant.now)

    def _event(self, kind: str, event: Any, now: int) -> None:
        if kind == "Broke":
            self._broken("fatal" if event.fatal else "again" if event.again else "request").inc()
            return
        pool = next((pool for pool in self._pools() if event.engine in pool.engines), None)
        if pool is None:
            return
        model = self._model(pool.spec.model)
        if kind == "Paced":
            self._itl(model).observe(event.itl)
        elif kind == "EngineLost":
            self._lost(model).inc()
        else:
            self._cold(model).observe(max(0, now - pool.engines[event.engine].since) / SECOND)

    # ------------------------------------------------------------ read when asked

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        text: bytes = self._text(self._registry)
        return text

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: what `collect` yields is known when it is called."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Gauges of queues and engines as they are now, and OpenTelemetry's names of some histograms."""
        core = importlib.import_module("prometheus_client.core")

        def gauge(name: str, about: str, *labels: str) -> Any:
            return core.GaugeMetricFamily(name, about, labels=labels)

        running = gauge("vllm:num_requests_running", "Dispatches that engines hold.", "model_name")
        waiting = gauge("vllm:num_requests_waiting", "Requests that wait for a dispatch.", "model_name")
        queue_bytes = gauge("sage_queue_bytes", "Bytes that the waiting requests carry.", "model")
        starting = gauge("sage_queue_cold", "Of those that wait, the ones that came before an engine was up.", "model")
        engines = gauge(
            "sage_engines", "Engines by state; paused ones are left alone by the breaker.", "model", "state"
        )
        trips = gauge("sage_breaker_trips", "Times in a row that the breaker has opened.", "model")
        # Names past the cap share a line, which Prometheus takes once only.
        sums: dict[tuple[str, tuple[str, ...]], float] = {}

        def add(family: Any, labels: tuple[str, ...], value: float) -> None:
            sums[family.name, labels] = sums.get((family.name, labels), 0) + value

        for pool in self._pools():
            model = self._model(pool.spec.model)
            add(waiting, (model,), len(pool.line))
            add(queue_bytes, (model,), pool.bytes)
            add(starting, (model,), len(pool.room))
            held, tripped = 0, 0
            states = dict.fromkeys(("starting", "up", "draining", "paused"), 0)
            for engine, standing in pool.engines.items():
                states["paused" if standing.paused_until is not None else standing.state] += 1
                tripped += standing.trips
                place = self._driver.manager.place(engine) if self._driver is not None else None
                held += place.running if place is not None else 0
            add(running, (model,), held)
            add(trips, (model,), tripped)
            for state, count in states.items():
                add(engines, (model, state), count)
        families = (running, waiting, queue_bytes, starting, engines, trips)
        by_name = {family.name: family for family in families}
        for (name, labels), value in sums.items():
            by_name[name].add_metric(labels, value)
        yield from families
        for histogram in self._named_twice:
            for family in histogram.collect():
                yield _renamed(core, family)

    def _pools(self) -> Iterable[Any]:
        return () if self._driver is None else tuple(self._driver.manager.pools.values())


#: Inputs that are counted; most are none of these.
_COUNTED = frozenset(("Broke", "Paced", "EngineOpened", "EngineLost"))


def _renamed(core: Any, family: Metric) -> Metric:
    name = _GEN_AI[family.name]
    told: Metric = core.Metric(name, family.documentation, "histogram")
    for sample in family.samples:
        labels = {**sample.labels, "gen_ai_request_model": sample.labels["model_name"]}
        del labels["model_name"]
        told.add_sample(sample.name.replace(family.name, name), labels, sample.value)
    return told
