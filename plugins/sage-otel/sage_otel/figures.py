"""Measurements of model calls: the histograms that OpenTelemetry's conventions for generative AI name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View

from sage_otel.calls import Call
from sage_otel.resources import resource_of

TOKENS = "gen_ai.client.token.usage"
DURATION = "gen_ai.server.request.duration"
FIRST = "gen_ai.server.time_to_first_token"
BETWEEN = "gen_ai.server.time_per_output_token"
#: Bounds of the buckets, as the conventions give them.
BOUNDS: Mapping[str, Sequence[float]] = {
    TOKENS: tuple(4**power for power in range(14)),
    DURATION: tuple(0.01 * 2**power for power in range(14)),
    FIRST: (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    BETWEEN: (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
}


class Figures:
    """Counts calls for the readers, each of which exports in its own time.

    Args:
        environ: names the service.
    """

    def __init__(self, readers: Sequence[MetricReader], environ: Mapping[str, str]) -> None:
        views = [
            View(instrument_name=name, aggregation=ExplicitBucketHistogramAggregation(bounds))
            for name, bounds in BOUNDS.items()
        ]
        self.provider = MeterProvider(
            metric_readers=readers, resource=resource_of(environ), views=views, shutdown_on_exit=False
        )
        meter = self.provider.get_meter("sage")
        self._tokens = meter.create_histogram(TOKENS, "{token}", "Input and output tokens, as engines count them.")
        self._duration = meter.create_histogram(DURATION, "s", "From a call's arrival to its end.")
        self._first = meter.create_histogram(FIRST, "s", "From arrival to the first token.")
        self._between = meter.create_histogram(BETWEEN, "s", "Between output tokens, after the first.")

    def call(self, call: Call) -> None:
        """Count a call."""
        named = call.attributes
        self._duration.record(call.total, named)
        if call.error:
            return
        for kind, count in (("input", call.tokens_in), ("output", call.tokens_out)):
            if count:
                self._tokens.record(count, {**named, "gen_ai.token.type": kind})
        if call.first:
            self._first.record(call.wait + call.first, named)
        if call.between:
            self._between.record(call.between, named)
