"""Processes that fire schedules, forked to die at a chosen statement; see `worker.nest`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import sage_cron

from sage_core.builtins import default_host
from sage_core.kernel.runtime.launch import find_project
from sage_core.kernel.runtime.schedules import fire_due
from sage_core.platform.store import JobStore
from tests.chaos import operators
from tests.chaos.severed import Severed
from tests.chaos.worker import nest

#: What both the ticking and the deploying process know.
PLUGINS = {"chaos": operators, "cron": sage_cron}


def tick(order: dict[str, Any]) -> dict[str, Any]:
    """Fire what is due in a project."""
    folder = Path(order["folder"])
    os.environ["SAGE_HOME"] = str(folder / "home")
    os.chdir(folder)
    project = find_project(folder)
    with project.open_store() as store:
        severed = Severed(store._db)
        with severed.armed(order["at"]):
            fired = fire_due(project, default_host(PLUGINS), store=JobStore(severed))  # type: ignore[arg-type]
    return {"counted": severed.counted, "fired": [[each.schedule, each.fire_at] for each in fired]}


if __name__ == "__main__":
    nest(tick)
