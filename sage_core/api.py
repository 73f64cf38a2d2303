"""SAGE from Python: run a workflow file, or one described with the fluent API, as `sage run` would."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sage_core.builtins import default_host
from sage_core.common.errors import UsageError
from sage_core.common.host import Host
from sage_core.kernel.dataflow.stream import Workflow
from sage_core.kernel.runtime import launch
from sage_core.kernel.runtime.drive import Settings
from sage_core.kernel.runtime.report import Report


def run(
    workflow: Workflow | Path | str,
    params: Mapping[str, object] | None = None,
    *,
    workers: int | None = None,
    host: Host | None = None,
) -> Report:
    """Run a workflow to its end and report what it came to; a failed run is reported, not raised.

    Args:
        workflow: a `Workflow`, or the path of a TOML file.
        params: values of the workflow's parameters; relative paths start at the current folder.
        workers: worker processes to use; 0 keeps everything in this process, None decides by the work there is.
        host: the plugins; None loads the installed ones.

    Raises:
        SageError: what is wrong before anything runs: the workflow, a parameter, a model, the store.
    """
    host = default_host() if host is None else host
    if isinstance(workflow, Workflow):
        project = launch.find_project(Path.cwd())
        graph = workflow.graph(host, known_models=project.config.models)
    else:
        project = launch.find_project(Path(workflow).parent)
        graph = launch.load(Path(workflow), host, project)
    run_id = launch.new_run_id()
    prepared = launch.bind(graph, params or {}, host, project, run_id=run_id)
    script = [name for name, target in prepared.local.items() if target.startswith("__main__:")]
    if script and workers:
        raise UsageError(
            f"operator {script[0]!r} is defined in the script that runs, where worker processes cannot import it",
            "move it to a module, or run with workers=0",
        )
    return launch.run(
        graph,
        prepared,
        run_id,
        host=host,
        project=project,
        settings=Settings(workers=0 if script else workers),
        watch=lambda progress: None,
    )
