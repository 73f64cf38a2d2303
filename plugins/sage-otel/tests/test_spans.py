"""Spans made with the real SDK, read from its in-memory exporter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from sage_otel.calls import Call
from sage_otel.spans import Spans

from sage_core import Attempt, Run, StepTime

S = 1_000_000_000
RUN = Run(
    id="r1",
    workflow="ask",
    status="succeeded",
    created_at="1970-01-01T00:00:01.000Z",
    finished_at="1970-01-01T00:00:09.250Z",
)
ATTEMPT = Attempt(
    job=7,
    run="r1",
    workflow="ask",
    session=1,
    stage="parse",
    part=3,
    steps=(StepTime(name="parse", seconds=1.0, rows_in=4, rows_out=3, failed=1), StepTime(name="chunk", seconds=0.5)),
    fence=2,
    attempt=1,
    worker="w1",
    node="n1",
    outcome="done",
    started_at=2 * S,
    finished_at=5 * S,
)


class Made:
    """One process's spans, kept in memory."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._kept = InMemorySpanExporter()
        self.spans = Spans([SimpleSpanProcessor(self._kept)], environ or {})

    @property
    def all(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._kept.get_finished_spans()}


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return {name.removeprefix("sage."): value for name, value in (span.attributes or {}).items()}


def context(span: ReadableSpan) -> Any:
    assert span.context is not None
    return span.context


def test_a_run_is_the_root() -> None:
    made = Made()
    made.spans.run(RUN)
    span = made.all["run ask"]
    assert span.parent is None
    assert (span.start_time, span.end_time) == (S, 9_250_000_000)
    assert attributes(span) == {"run": "r1", "workflow": "ask", "session": 1, "outcome": "succeeded"}
    assert span.status.status_code is StatusCode.UNSET
    assert span.resource.attributes["service.name"] == "sage"


def test_jobs_of_other_processes_are_below_the_run_and_steps_below_their_job() -> None:
    here, there = Made(), Made()
    there.spans.job(ATTEMPT)
    here.spans.run(RUN)
    root, job = here.all["run ask"], there.all["job parse"]
    assert job.parent is not None
    assert (job.parent.trace_id, job.parent.span_id) == (context(root).trace_id, context(root).span_id)
    assert (job.start_time, job.end_time) == (2 * S, 5 * S)
    assert attributes(job) == {
        "run": "r1",
        "workflow": "ask",
        "session": 1,
        "stage": "parse",
        "part": 3,
        "job": 7,
        "queue": "default",
        "fence": 2,
        "attempt": 1,
        "worker": "w1",
        "node": "n1",
        "outcome": "done",
    }
    parse, chunk = there.all["step parse"], there.all["step chunk"]
    assert [(step.start_time, step.end_time) for step in (parse, chunk)] == [(2 * S, 3 * S), (3 * S, 3_500_000_000)]
    assert all(step.parent is not None and step.parent.span_id == context(job).span_id for step in (parse, chunk))
    assert attributes(parse) == {
        "run": "r1",
        "step": "parse",
        "fence": 2,
        "rows_in": 4,
        "rows_out": 3,
        "rows_failed": 1,
    }


def test_sessions_share_a_trace_and_runs_do_not() -> None:
    ids = []
    for run in (RUN, msgspec.structs.replace(RUN, session=2), msgspec.structs.replace(RUN, id="r2")):
        made = Made()
        made.spans.run(run)
        found = context(made.all["run ask"])
        ids.append((found.trace_id, found.span_id))
    (first, one), (again, two), (other, three) = ids
    assert first == again != other
    assert len({one, two, three}) == 3


@pytest.mark.parametrize("outcome", ["failed", "retried"])
def test_what_failed_says_why(outcome: Any) -> None:
    made = Made()
    made.spans.job(msgspec.structs.replace(ATTEMPT, outcome=outcome, error="no such file"))
    status = made.all["job parse"].status
    assert (status.status_code, status.description) == (StatusCode.ERROR, "no such file")


def test_a_failed_run_says_why() -> None:
    made = Made()
    made.spans.run(msgspec.structs.replace(RUN, status="failed", error="a row failed"))
    status = made.all["run ask"].status
    assert (status.status_code, status.description) == (StatusCode.ERROR, "a row failed")


def test_a_step_never_outlasts_its_job() -> None:
    made = Made()
    made.spans.job(msgspec.structs.replace(ATTEMPT, finished_at=2 * S + 5))
    assert {span.end_time for name, span in made.all.items() if name.startswith("step")} == {2 * S + 5}


def test_a_run_is_linked_to_the_span_it_was_started_from() -> None:
    made = Made({"TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
    made.spans.run(RUN)
    (link,) = made.all["run ask"].links
    assert f"{link.context.trace_id:032x}-{link.context.span_id:016x}" == (
        "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"
    )
    unlinked = Made({"TRACEPARENT": "nonsense"})
    unlinked.spans.run(RUN)
    assert list(unlinked.all["run ask"].links) == []


def test_the_processes_of_a_run_agree_on_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    seen = set()
    for number in range(40):
        here, there = Made(), Made()
        here.spans.run(msgspec.structs.replace(RUN, id=f"r{number}"))
        there.spans.job(msgspec.structs.replace(ATTEMPT, run=f"r{number}"))
        assert bool(here.all) == bool(there.all)
        seen.add(bool(here.all))
    assert seen == {True, False}


def test_the_service_may_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    made = Made({"OTEL_SERVICE_NAME": "mine"})
    made.spans.run(RUN)
    assert made.all["run ask"].resource.attributes["service.name"] == "mine"


CALL = Call(
    request="req-1",
    operation="chat",
    model="m",
    tenant="t",
    service_class="interactive",
    run="r1",
    step="reply",
    engine="m/0",
    policy="fifo",
    outcome="done",
    reason="",
    total=2.0,
    wait=0.5,
    first=0.25,
    tokens_in=10,
    tokens_out=6,
    cached=4,
    attempts=0,
    max_tokens=64,
)


def test_a_model_call_is_below_its_run_and_has_the_names_of_the_conventions() -> None:
    made = Made()
    made.spans.run(RUN)
    made.spans.call(CALL, 9 * S)
    root, span = made.all["run ask"], made.all["chat m"]
    assert context(span).trace_id == context(root).trace_id
    assert span.parent is not None
    assert span.parent.span_id == context(root).span_id
    assert (span.kind, span.start_time, span.end_time) == (SpanKind.CLIENT, 7 * S, 9 * S)
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "sage",
        "gen_ai.request.model": "m",
        "gen_ai.request.max_tokens": 64,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 6,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "sage.run": "r1",
        "sage.step": "reply",
        "sage.engine": "m/0",
        "sage.policy": "fifo",
        "sage.first_token_s": 0.25,
        "sage.request": "req-1",
        "sage.tenant": "t",
        "sage.class": "interactive",
        "sage.outcome": "done",
        "sage.wait_s": 0.5,
    }


def test_a_call_of_no_run_is_a_trace_of_its_own_and_one_that_was_refused_an_error() -> None:
    made = Made()
    refused = {"run": "", "engine": "", "outcome": "rejected", "reason": "the queue is full", "first": 0.0}
    made.spans.call(msgspec.structs.replace(CALL, **refused), 9 * S)
    span = made.all["chat m"]
    assert span.parent is None
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "the queue is full")
    assert (span.attributes or {})["error.type"] == "rejected"
