"""Exporters are found by their entry points; one that is missing or broken is named, and nothing else happens."""

from __future__ import annotations

import logging

import pytest
from sage_otel.export import measured, opened


def test_an_exporter_of_the_sdk_is_found() -> None:
    assert opened(["console"], {}) is not None


@pytest.mark.parametrize(
    ("environ", "name"),
    [({}, "otlp_proto_http"), ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "otlp_proto_grpc")],
)
def test_a_missing_one_is_named_with_the_way_out(
    environ: dict[str, str], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="sage"):
        assert opened(["otlp"], environ) is None
    (record,) = caplog.records
    assert vars(record)["action"] == "traces_not_exported"
    assert vars(record)["sage"] == {"exporter": name, "problem": "pip install sage-otel[otlp]"}


def test_one_that_is_there_is_used_beside_one_that_is_not(caplog: pytest.LogCaptureFixture) -> None:
    assert opened(["zipkin", "console"], {}) is not None
    assert [vars(record)["sage"]["exporter"] for record in caplog.records] == ["zipkin"]


def test_figures_have_exporters_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    assert measured(["console", "statsd"], {}) is not None
    (record,) = caplog.records
    assert (vars(record)["action"], vars(record)["sage"]["exporter"]) == ("metrics_not_exported", "statsd")
    assert measured(["statsd"], {}) is None
