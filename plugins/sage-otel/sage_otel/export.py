"""Where telemetry goes: exporters that the environment names, found by the entry points OpenTelemetry has for them."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, TypeVar

from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from sage_otel.figures import Figures
from sage_otel.spans import Spans

T = TypeVar("T")


def opened(names: Sequence[str], environ: Mapping[str, str]) -> Spans | None:
    """Spans that go to these exporters, sent in batches and at the end of the process; None where none can be had."""
    processors = [made for name in names if (made := _made(name, environ, "traces", BatchSpanProcessor)) is not None]
    return Spans(processors, environ) if processors else None


def measured(names: Sequence[str], environ: Mapping[str, str]) -> Figures | None:
    """Figures that go to these exporters, every minute (OTEL_METRIC_EXPORT_INTERVAL) and at the end of the process."""
    readers = [made for name in names if (made := _made(name, environ, "metrics", _reader)) is not None]
    if not readers:
        return None
    figures = Figures(readers, environ)
    atexit.register(figures.provider.shutdown)
    return figures


def _reader(exporter: Any) -> MetricReader:
    # Some, such as Prometheus' own, are asked instead of sending.
    return exporter if isinstance(exporter, MetricReader) else PeriodicExportingMetricReader(exporter)


def _made(name: str, environ: Mapping[str, str], signal: str, make: Callable[[Any], T]) -> T | None:
    if name == "otlp":
        own = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL")
        grpc = (own or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")) == "grpc"
        name = "otlp_proto_grpc" if grpc else "otlp_proto_http"
    try:
        # Named once per process, so the first entry is the only one that matters.
        (entry, *_) = entry_points(group=f"opentelemetry_{signal}_exporter", name=name)
        made = make(entry.load()())
    except Exception as error:  # noqa: BLE001 - a missing or broken exporter must not end the run it would tell of
        problem = "pip install sage-otel[otlp]" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        fields = {"exporter": name, "problem": problem}
        shown = " ".join(f"{key}={value}" for key, value in fields.items())
        traces = signal == "traces"
        logging.getLogger("sage").warning(
            "%s_not_exported %s",
            signal,
            shown,
            extra={"action": "traces_not_exported" if traces else "metrics_not_exported", "sage": fields},
        )
        return None
    if isinstance(made, BatchSpanProcessor):
        atexit.register(made.shutdown)
    return made
