"""A project with one deployment, for tests of schedules on both databases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sage_core.common.config import Config, StoreConfig
from sage_core.kernel.runtime import deployments
from sage_core.kernel.runtime.schedules import Fired, fire_due
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime.schedule_operators import CRON, MINUTE, PLUGINS, WORKFLOW

STEP = 5 * MINUTE


class Field:
    """A project with one deployment, whose schedules can be made due."""

    def __init__(self, place: Path, url: str) -> None:
        self.url = url
        self.flows = Flows(place, PLUGINS, config=Config(store=StoreConfig(url=url)))
        self.project, self.host = self.flows.project, self.flows.host
        #: The clock cannot be held, so fire times are put two minutes or more from when the test runs.
        self.started = self.now() // MINUTE * MINUTE

    def deploy(self, extra: str = CRON, **options: Any) -> deployments.Deployed:
        graph = self.flows.graph(WORKFLOW + extra.replace("*/5", self.every(5)))
        return deployments.deploy(graph, options.pop("given", {}), host=self.host, project=self.project, **options)

    def fire(self) -> list[Fired]:
        return fire_due(self.project, self.host)

    def now(self) -> int:
        with self.flows.open_store() as store:
            return store.now()

    def every(self, minutes: int) -> str:
        """A minute field that has just fired, by half of its step."""
        return f"{(self.started // MINUTE - minutes // 2) % minutes}/{minutes}"

    def latest(self) -> int:
        """The last fire time of a schedule of every five minutes."""
        return self.started - 2 * MINUTE

    def make_due(self, ago: int, id: str = "report/1") -> int:
        """Put the next fire time of a schedule to its last one, or so much before it."""
        at = self.latest() - ago
        with self.flows.open_store() as store, store.transaction() as tx:
            tx.move_schedule(id, at)
        return at

    def fires(self) -> list[tuple[int, str, str | None]]:
        with self.flows.open_store() as store:
            return [(fire.fire_at, fire.outcome, fire.run_id) for fire in reversed(store.fires())]

    def runs(self) -> dict[str, str]:
        with self.flows.open_store() as store:
            return {run.id: run.status for run in reversed(store.runs(1000))}

    def end(self, run_id: str | None) -> None:
        assert run_id is not None
        with self.flows.open_store() as store:
            store.finish_run(run_id, "succeeded")
