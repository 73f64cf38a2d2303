"""OpenTelemetry for SAGE: a span per run, job and step, made when each has ended.

Nothing of OpenTelemetry is imported unless the environment asks for traces, as its specification says: by
``OTEL_TRACES_EXPORTER`` or an ``OTEL_EXPORTER_OTLP_…ENDPOINT``, and not by ``OTEL_SDK_DISABLED``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sage_core import hookimpl

if TYPE_CHECKING:
    from sage_core import Attempt, Run
    from sage_otel.spans import Spans

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


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


def exporters(environ: Mapping[str, str]) -> list[str]:
    """Names of the exporters that the environment asks for; ``otlp`` where it names no more than an endpoint."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    default = "otlp" if any(environ.get(name) for name in _ENDPOINTS) else "none"
    named = [name.strip() for name in (environ.get("OTEL_TRACES_EXPORTER") or default).split(",")]
    return [name for name in named if name not in ("", "none")]


# Once per process: an exporter has a thread and a connection.
@functools.cache
def _spans() -> Spans | None:
    names = exporters(os.environ)
    if not names:
        return None
    from sage_otel.export import opened  # noqa: PLC0415 - 200 ms that only who wants traces pays

    return opened(names, os.environ)
