"""Schedules for SAGE workflows: what ``[[triggers.cron]]`` means in time."""

from __future__ import annotations

from collections.abc import Mapping

from sage_core import hookimpl


@hookimpl
def sage_triggers() -> Mapping[str, str]:
    """Name the trigger; its module loads when a fire time is first asked for."""
    return {"cron": "sage_cron.trigger:Cron"}
