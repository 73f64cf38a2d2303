"""`sage runs`: list, show, cancel and resume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from sage_core.cli.app import App, pass_app
from sage_core.cli.group import Group
from sage_core.cli.output import json_option, print_json, print_table
from sage_core.cli.watch import present, watch_option
from sage_core.common.errors import UsageError
from sage_core.common.records import RunStatus

if TYPE_CHECKING:
    from sage_core.kernel.runtime.launch import Project
    from sage_core.platform.store import JobStore

#: Said where no run is found: runs are kept where their workflow is, which need not be here.
ELSEWHERE = "runs are kept in the project of their workflow: change to its folder, or start one: sage run WORKFLOW"


@click.group(cls=Group)
def runs() -> None:
    """List, show, cancel and resume runs of this project.

    The project is the nearest folder at or above the current one that holds sage.toml or .sage.

    \b
    Examples:
      sage runs list
      sage runs show 261122-153000-a1b2c3
      sage runs resume 261122
    """


@runs.command("list")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many, newest first.")
@click.option("--status", type=click.Choice(get_args(RunStatus)), help="Only runs with this status.")
@watch_option
@json_option
def list_runs(limit: int, status: RunStatus | None, as_json: bool, watch: bool) -> None:
    """List runs, newest first.

    \b
    Examples:
      sage runs list
      sage runs list --status failed --limit 5
      sage runs list --json
      sage runs list --watch
    """
    from sage_core.kernel.runtime.inspect import iso  # noqa: PLC0415 - `--help` needs none of it

    project = _project()

    def read(store: JobStore) -> list[dict[str, str]]:
        return [
            {"run_id": run.id, "status": run.status, "workflow": run.workflow, "created_at": iso(run.created_at)}
            for run in store.runs(limit, status=status)
        ]

    def say(rows: list[dict[str, str]]) -> None:
        if rows:
            print_table(["run", "status", "workflow", "created"], [list(row.values()) for row in rows])
        else:
            such = "No runs" if status is None else f"No runs with status {status}"
            click.echo(f"{such} in {_place(project)}\n  help: {ELSEWHERE}", err=True)

    # Watching waits for the first run, and so may make its store.
    if _has_store(project) or watch:
        with project.open_store() as store:
            present(store, read, say, as_json=as_json, watch=watch)
    else:
        print_json([]) if as_json else say([])


@runs.command("show")
@click.argument("run_id")
@click.option("--jobs", "by_job", is_flag=True, help="Draw one line per job.")
@watch_option
@json_option
@pass_app
def show(app: App, run_id: str, by_job: bool, as_json: bool, watch: bool) -> None:
    """Show one run: its status, steps, timeline, skipped rows and what was in its way.

    RUN_ID may be cut short as long as only one run starts with it.

    \b
    Examples:
      sage runs show 261122-153000-a1b2c3
      sage runs show 261122 --json
      sage runs show 261122 --jobs --watch
    """
    from sage_core.cli.shown import ShownRun  # noqa: PLC0415 - `--help` needs none of it
    from sage_core.platform.records import ENDED  # noqa: PLC0415 - see above

    project = _project(run_id)
    with project.open_store() as store:
        shown = ShownRun(store.run(run_id).id, project.paths, by_job=by_job, as_json=as_json, watch=watch)
        over = lambda found: found["status"] in ENDED  # noqa: E731
        present(store, shown.read, shown.say, as_json=as_json, watch=watch, over=over)


@runs.command("cancel")
@click.argument("run_id")
@json_option
def cancel(run_id: str, as_json: bool) -> None:
    """Stop a run; what is finished is kept, and it can be resumed.

    \b
    Examples:
      sage runs cancel 261122-153000-a1b2c3
    """
    with _project(run_id).open_store() as store:
        run = store.run(run_id)
        stopped = store.cancel_run(run.id)
        status = store.run(run.id).status
    if as_json:
        print_json({"run_id": run.id, "status": status, "cancelled": stopped})
    else:
        click.echo(f"run {run.id}: {'cancelled' if stopped else f'was over already ({status})'}")


@runs.command("resume")
@click.argument("run_id")
@click.option("--workers", type=click.IntRange(1, 64), metavar="N", help="Use N worker processes.")
@click.option("--inline", is_flag=True, help="Run everything in this process.")
@json_option
@pass_app
def resume(app: App, run_id: str, workers: int | None, inline: bool, as_json: bool) -> None:
    """Continue a run that failed, was interrupted, or whose process is gone; what is done is not done again.

    \b
    Examples:
      sage runs resume 261122-153000-a1b2c3
      sage runs resume 261122 --workers 4 --json
    """
    from sage_core.cli.outcome import finish  # noqa: PLC0415 - `--help` needs none of it
    from sage_core.cli.run import settings_of  # noqa: PLC0415 - see above
    from sage_core.cli.screen import Screen  # noqa: PLC0415 - see above
    from sage_core.kernel.runtime import launch  # noqa: PLC0415 - see above

    settings = settings_of(workers, inline)
    project = _project(run_id)
    with project.open_store() as store:
        run = store.run(run_id)
    with Screen(run.workflow, as_json=as_json) as screen:
        report = launch.resume(run.id, host=app.host, project=project, settings=settings, watch=screen.watch)
    finish(report, as_json=as_json, seconds=screen.seconds)


def _project(run_id: str = "") -> Project:
    """The current folder's project; one that never ran anything is refused where a run of it is asked for."""
    from sage_core.kernel.runtime.launch import find_project  # noqa: PLC0415 - `--help` needs none of it

    project = find_project(Path.cwd())
    if run_id and not _has_store(project):
        raise UsageError(f"No run has the id {run_id!r}: there are no runs in {_place(project)}", ELSEWHERE)
    return project


def _has_store(project: Project) -> bool:
    # Opening the default store makes it, and with it a project of whatever folder the user happens to look from.
    return bool(project.config.store.url) or project.paths.database.exists()


def _place(project: Project) -> str:
    from sage_core.platform.database import mask  # noqa: PLC0415 - `--help` needs none of it

    return mask(project.config.store.url) if project.config.store.url else str(project.paths.project)
