"""Figures measured with the real SDK, and read from its in-memory reader."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from sage_otel.calls import Call
from sage_otel.figures import BETWEEN, BOUNDS, DURATION, FIRST, TOKENS, Figures

CALL = Call(
    request="req-1",
    operation="chat",
    model="m",
    tenant="t",
    service_class="interactive",
    run="",
    step="",
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


def read(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    data = reader.get_metrics_data()
    assert data is not None
    (resource,) = data.resource_metrics
    assert resource.resource.attributes["service.name"] == "sage"
    (scope,) = resource.scope_metrics
    return {metric.name: list(metric.data.data_points) for metric in scope.metrics}


def test_a_call_is_counted_under_the_names_of_the_conventions() -> None:
    reader = InMemoryMetricReader()
    figures = Figures([reader], {})
    figures.call(CALL)
    found = read(reader)
    named = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "sage", "gen_ai.request.model": "m"}
    assert {(point.attributes["gen_ai.token.type"], point.sum) for point in found.pop(TOKENS)} == {
        ("input", 10),
        ("output", 6),
    }
    # From arrival: the wait is part of them. Of five gaps in 1.25 s, each has a quarter of a second.
    sums = {name: (point.sum, dict(point.attributes)) for name, (point,) in found.items()}
    assert sums == {DURATION: (2.0, named), FIRST: (0.75, named), BETWEEN: (0.25, named)}
    assert {name: tuple(point.explicit_bounds) for name, (point,) in found.items()} == {
        name: tuple(bounds) for name, bounds in BOUNDS.items() if name != TOKENS
    }


def test_a_refused_call_has_a_duration_and_an_error_and_nothing_else() -> None:
    reader = InMemoryMetricReader()
    Figures([reader], {}).call(msgspec.structs.replace(CALL, outcome="rejected"))
    found = read(reader)
    ((point,),) = found.values()
    assert list(found) == [DURATION]
    assert point.attributes["error.type"] == "rejected"


def test_what_no_engine_counted_is_not_counted_here() -> None:
    reader = InMemoryMetricReader()
    Figures([reader], {}).call(msgspec.structs.replace(CALL, tokens_in=0, tokens_out=0, first=0.0))
    assert list(read(reader)) == [DURATION]


def test_the_names_are_those_of_the_semantic_conventions() -> None:
    # Its own package makes no promise about it.
    names = pytest.importorskip("opentelemetry.semconv._incubating.metrics.gen_ai_metrics")
    assert {TOKENS, DURATION, FIRST, BETWEEN} == {
        names.GEN_AI_CLIENT_TOKEN_USAGE,
        names.GEN_AI_SERVER_REQUEST_DURATION,
        names.GEN_AI_SERVER_TIME_TO_FIRST_TOKEN,
        names.GEN_AI_SERVER_TIME_PER_OUTPUT_TOKEN,
    }
