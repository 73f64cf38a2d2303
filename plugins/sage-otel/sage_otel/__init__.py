"""OpenTelemetry for SAGE: a span per run, job, step and model call, made when each has ended, and figures of the calls.

Nothing of OpenTelemetry is imported unless the environment asks for it, as its specification says: by an
``OTEL_…_EXPORTER`` or an ``OTEL_EXPORTER_OTLP_…ENDPOINT``, for traces or metrics, and not by ``OTEL_SDK_DISABLED``.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sage_core import hookimpl

if TYPE_CHECKING:
    from sage_core import Attempt, Request, Run
    from sage_otel.figures import Figures
    from sage_otel.spans import Spans

#: Of what OpenTelemetry calls signals, those that are made here.
TRACES, METRICS = "TRACES", "METRICS"


@hookimpl
def sage_on_job_finished(attempt: Attempt) -> None:
    """Make the spans of an attempt at a job and of its steps."""
    spans = _spans()
    if spans is not None:
        spans.job(attempt)


@hookimpl
def sage_on_run_finished(run: Run) -> None:
    """Make the span of a run."""
    spans = _spans()
    if spans is not None:
        spans.run(run)


def exporters(environ: Mapping[str, str], signal: str = TRACES) -> list[str]:
    """Names of the exporters that the environment asks for; ``otlp`` where it names no more than an endpoint."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    default = "otlp" if any(environ.get(name) for name in endpoints) else "none"
    named = [name.strip() for name in (environ.get(f"OTEL_{signal}_EXPORTER") or default).split(",")]
    return [name for name in named if name not in ("", "none")]


# An observer of decisions costs each request something: where nothing is asked for, there is none.
if exporters(os.environ) or exporters(os.environ, METRICS):

    @hookimpl
    def sage_on_request_decided(request: Request, decision: Mapping[str, object]) -> None:
        """Make the span of a model call, and count it."""
        from sage_otel.calls import call_of  # noqa: PLC0415 - only who wants telemetry pays for it

        call = call_of(request, decision)
        spans, figures = _spans(), _figures()
        if call is not None and spans is not None:
            spans.call(call, time.time_ns())
        if call is not None and figures is not None:
            figures.call(call)


# Once per process: an exporter has a thread and a connection.
@functools.cache
def _spans() -> Spans | None:
    names = exporters(os.environ)
    if not names:
        return None
    from sage_otel.export import opened  # noqa: PLC0415 - 200 ms that only who wants traces pays

    return opened(names, os.environ)


@functools.cache
def _figures() -> Figures | None:
    names = exporters(os.environ, METRICS)
    if not names:
        return None
    from sage_otel.export import measured  # noqa: PLC0415 - as above

    return measured(names, os.environ)
