"""The service's name, by OpenTelemetry's own variables."""

from __future__ import annotations

import pytest
from sage_otel.resources import resource_of


def test_a_service_without_a_name_is_called_sage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    assert resource_of({}).attributes["service.name"] == "sage"


def test_a_name_of_the_environment_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    assert resource_of({"OTEL_SERVICE_NAME": "mine"}).attributes["service.name"] == "mine"
