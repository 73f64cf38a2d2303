"""Whose telemetry it is."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.sdk.resources import Resource


def resource_of(environ: Mapping[str, str]) -> Resource:
    """What the environment says of the service, which is called ``sage`` where it has no name."""
    named = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create({} if named else {"service.name": "sage"})
