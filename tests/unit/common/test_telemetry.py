"""Structured logs carry a machine name and fields."""

from __future__ import annotations

import logging

import pytest

from sage_core.common.telemetry import log


def test_a_record_has_its_action_and_fields(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="sage"):
        log("run_finished", run="r1", rows=3)
        log("silent", level=logging.DEBUG)
    (record,) = caplog.records
    assert record.getMessage() == "run_finished run=r1 rows=3"
    assert vars(record)["action"] == "run_finished"
    assert vars(record)["sage"] == {"run": "r1", "rows": 3}


def test_an_action_may_stand_alone(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="sage"):
        log("stopped", level=logging.WARNING)
    assert caplog.records[0].getMessage() == "stopped"
