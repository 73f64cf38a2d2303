"""Workflows run for real in tests: real store, real artifacts, real worker processes, in a folder of the test's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sage_core.builtins import default_host
from sage_core.common.config import Config
from sage_core.common.paths import Paths
from sage_core.kernel.dataflow import check
from sage_core.kernel.dataflow.graph import Graph
from sage_core.kernel.runtime import launch
from sage_core.kernel.runtime.drive import Settings
from sage_core.kernel.runtime.preview import Decision
from sage_core.kernel.runtime.report import Report
from sage_core.platform.store import JobStore


class Flows:
    """Runs workflows under one home, so that a later run finds what an earlier one left.

    Args:
        home: a folder of the test's own, such as ``tmp_path``; nothing outside of it is read or written.
        plugins: plugins by name. Worker processes import them by name, so a run with workers takes modules only.
    """

    def __init__(self, home: Path, plugins: Mapping[str, object], *, config: Config | None = None) -> None:
        self.home = home
        self.host = default_host(plugins)
        paths = Paths(project=home / "project", data=home / "data", runtime=home / "run")
        self.project = launch.Project(folder=home, paths=paths, config=config or Config())

    def graph(self, workflow: Mapping[str, Any] | str | Path, *, profile: str | None = None) -> Graph:
        """Check a workflow: a path, the text of a TOML file, or the tables of one (``sage = 1`` may be left out)."""
        if isinstance(workflow, Mapping):
            return check.check_tree({"sage": 1, **workflow}, self.host, base=self.home)
        if isinstance(workflow, str):
            path = self.home / "workflow.toml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(workflow, encoding="utf-8")
            workflow = path
        return launch.load(workflow, self.host, self.project, profile=profile)

    def run(
        self,
        workflow: Mapping[str, Any] | str | Path,
        params: Mapping[str, object] | None = None,
        *,
        workers: int = 0,
        profile: str | None = None,
    ) -> Report:
        """Run a workflow to its end; `workers` 0 keeps everything in this process. A failed run is reported."""
        graph, run_id = self.graph(workflow, profile=profile), launch.new_run_id()
        prepared = launch.bind(graph, params or {}, self.host, self.project, run_id=run_id)
        settings = Settings(workers=workers)
        return launch.run(
            graph,
            prepared,
            run_id,
            host=self.host,
            project=self.project,
            settings=settings,
            watch=lambda progress: None,
        )

    def resume(self, run_id: str, *, workers: int = 0, redrive: bool = False) -> Report:
        """Drive a run on from where it stopped; `redrive` tries rows that were skipped again."""
        settings = Settings(workers=workers)
        return launch.resume(
            run_id,
            host=self.host,
            project=self.project,
            settings=settings,
            watch=lambda progress: None,
            redrive=redrive,
        )

    def plan(
        self,
        workflow: Mapping[str, Any] | str | Path,
        params: Mapping[str, object] | None = None,
        *,
        probe: bool = False,
    ) -> dict[str, Decision]:
        """What a run would do with each step."""
        graph, run_id = self.graph(workflow), launch.new_run_id()
        prepared = launch.bind(graph, params or {}, self.host, self.project, run_id=run_id)
        return launch.plan(graph, prepared, run_id, host=self.host, project=self.project, probe=probe)

    def open_store(self) -> JobStore:
        """The job store these runs are kept in; close it after use."""
        return self.project.open_store()
