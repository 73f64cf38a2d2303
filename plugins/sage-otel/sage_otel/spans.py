"""Spans of runs, jobs, steps and model calls, made after the fact from what the hooks tell.

The ids of a run's trace and span are derived from the run's id, so that processes which know nothing of one another
put their jobs under the same run, and nothing has to travel with the jobs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from opentelemetry.context import Context
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sage_core import Attempt, Run
from sage_otel.calls import Call
from sage_otel.resources import resource_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = 1_000_000


class Spans:
    """Makes spans and hands them to the processors.

    Args:
        environ: names the service, the sampler, and in ``TRACEPARENT`` the span from which a run was started.
    """

    def __init__(self, processors: Sequence[SpanProcessor], environ: Mapping[str, str]) -> None:
        self._processors = processors
        self._resource = resource_of(environ)
        self._links = _links(environ.get("TRACEPARENT", ""))
        self._provider = self._make()

    def run(self, run: Run) -> None:
        """One span for a session of a run, from the run's submission on."""
        # A provider of its own, because the ids of a span without a parent come from the provider.
        tracer = _tracer(self._make(_RunIds(run.id, run.session)))
        span = tracer.start_span(
            f"run {run.workflow}",
            context=Context(),
            links=self._links,
            start_time=_ns(run.created_at),
            attributes={
                "sage.run": run.id,
                "sage.workflow": run.workflow,
                "sage.session": run.session,
                "sage.outcome": run.status,
            },
        )
        if run.status == "failed":
            span.set_status(Status(StatusCode.ERROR, run.error))
        span.end(_ns(run.finished_at or run.created_at))

    def job(self, attempt: Attempt) -> None:
        """A span for the attempt below its run, and one for each step below that."""
        tracer = _tracer(self._provider)
        span = tracer.start_span(
            f"job {attempt.stage}",
            context=self._run_context(attempt.run, attempt.session),
            start_time=attempt.started_at,
            attributes={
                "sage.run": attempt.run,
                "sage.workflow": attempt.workflow,
                "sage.session": attempt.session,
                "sage.stage": attempt.stage,
                "sage.part": attempt.part,
                "sage.job": attempt.job,
                "sage.queue": attempt.queue,
                "sage.fence": attempt.fence,
                "sage.attempt": attempt.attempt,
                "sage.worker": attempt.worker,
                "sage.node": attempt.node,
                "sage.outcome": attempt.outcome,
            },
        )
        below, start = set_span_in_context(span), attempt.started_at
        # Their lengths are measured; they are laid end to end, because the steps of a job run one after another.
        for step in attempt.steps:
            stop = min(start + int(step.seconds * 1e9), attempt.finished_at)
            figures = {"sage.rows_in": step.rows_in, "sage.rows_out": step.rows_out, "sage.rows_failed": step.failed}
            tracer.start_span(
                f"step {step.name}",
                context=below,
                start_time=start,
                attributes={"sage.run": attempt.run, "sage.step": step.name, "sage.fence": attempt.fence, **figures},
            ).end(stop)
            start = stop
        if attempt.outcome in ("failed", "retried"):
            span.set_status(Status(StatusCode.ERROR, attempt.error))
        span.end(attempt.finished_at)

    def call(self, call: Call, ended: int) -> None:
        """A span for a model call, below its run where it has one.

        Args:
            ended: epoch ns.
        """
        # A call does not know which session of its run it belongs to: the first is there whenever there is any.
        context = self._run_context(call.run, 1) if call.run else Context()
        known: dict[str, str | int | float] = {
            "gen_ai.request.max_tokens": call.max_tokens,
            "gen_ai.usage.input_tokens": call.tokens_in,
            "gen_ai.usage.output_tokens": call.tokens_out,
            "gen_ai.usage.cache_read.input_tokens": call.cached,
            "sage.run": call.run,
            "sage.step": call.step,
            "sage.engine": call.engine,
            "sage.policy": call.policy,
            "sage.first_token_s": call.first,
            "sage.failed_attempts": call.attempts,
        }
        span = _tracer(self._provider).start_span(
            f"{call.operation} {call.model}",
            context=context,
            kind=SpanKind.CLIENT,
            start_time=ended - round(call.total * 1e9),
            attributes={
                **call.attributes,
                **{name: value for name, value in known.items() if value},
                "sage.request": call.request,
                "sage.tenant": call.tenant,
                "sage.class": call.service_class,
                "sage.outcome": call.outcome,
                "sage.wait_s": call.wait,
            },
        )
        if call.error:
            span.set_status(Status(StatusCode.ERROR, call.reason))
        span.end(ended)

    def _run_context(self, run: str, session: int) -> Context:
        ids = _RunIds(run, session)
        # As the process that makes the run's span decides: samplers go by the trace's id.
        decision = self._provider.sampler.should_sample(None, ids.generate_trace_id(), "run").decision
        sampled = decision is Decision.RECORD_AND_SAMPLE
        parent = SpanContext(
            trace_id=ids.generate_trace_id(),
            span_id=ids.generate_span_id(),
            is_remote=True,
            trace_flags=TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT),
        )
        return set_span_in_context(NonRecordingSpan(parent), Context())

    def _make(self, ids: IdGenerator | None = None) -> TracerProvider:
        provider = TracerProvider(resource=self._resource, id_generator=ids, shutdown_on_exit=False)
        for processor in self._processors:
            provider.add_span_processor(processor)
        return provider


class _RunIds(IdGenerator):
    """One trace for all sessions of a run, one span for each."""

    def __init__(self, run: str, session: int) -> None:
        self._run = run
        self._session = session

    def generate_trace_id(self) -> int:
        return _derived(16, "trace", self._run)

    def generate_span_id(self) -> int:
        return _derived(8, "run", self._run, str(self._session))


def _derived(size: int, *parts: str) -> int:
    # Ids of all zeros are invalid, and no more likely than any other.
    return int.from_bytes(hashlib.blake2b("\0".join(parts).encode(), digest_size=size).digest())


def _tracer(provider: TracerProvider) -> Tracer:
    return provider.get_tracer("sage")


def _links(traceparent: str) -> list[Link]:
    carried = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, Context())
    caller = get_current_span(carried).get_span_context()
    return [Link(caller)] if caller.is_valid else []


def _ns(iso: str) -> int:
    return (datetime.fromisoformat(iso) - _EPOCH) // timedelta(milliseconds=1) * _MS
