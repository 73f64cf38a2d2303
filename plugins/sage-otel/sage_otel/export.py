"""Where spans go: the exporters that the environment names, found by the entry points OpenTelemetry has for them."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points

from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from sage_otel.spans import Spans

_GROUP = "opentelemetry_traces_exporter"


def opened(names: Sequence[str], environ: Mapping[str, str]) -> Spans | None:
    """Spans that go to these exporters, sent in batches and at the end of the process; None where none can be had."""
    processors = [processor for name in names if (processor := _processor(name, environ)) is not None]
    return Spans(processors, environ) if processors else None


def _processor(name: str, environ: Mapping[str, str]) -> SpanProcessor | None:
    if name == "otlp":
        protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        name = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    try:
        # Named once per process, so the first entry is the only one that matters.
        (entry, *_) = entry_points(group=_GROUP, name=name)
        processor = BatchSpanProcessor(entry.load()())
    except Exception as error:  # noqa: BLE001 - a missing or broken exporter must not end the run it would tell of
        problem = "pip install sage-otel[otlp]" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        fields = {"exporter": name, "problem": problem}
        shown = " ".join(f"{key}={value}" for key, value in fields.items())
        logging.getLogger("sage").warning(
            "traces_not_exported %s", shown, extra={"action": "traces_not_exported", "sage": fields}
        )
        return None
    atexit.register(processor.shutdown)
    return processor
