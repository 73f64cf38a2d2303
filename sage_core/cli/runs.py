"""`sage runs`: list and show, cancel, resume, redrive, fork and prune."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from sage_core.cli.app import App, pass_app
from sage_core.cli.group import Group
from sage_core.cli.output import json_option, print_json, print_table
from sage_core.cli.stored import ELSEWHERE, has_store, place_of, project_here, project_of
from sage_core.cli.watch import present, watch_option
from sage_core.cli.worker import Duration
from sage_core.common.errors import UsageError
from sage_core.common.records import RunStatus

if TYPE_CHECKING:
    from sage_core.kernel.dataflow.graph import Graph
    from sage_core.kernel.runtime.drive import Settings
    from sage_core.kernel.runtime.launch import Project
    from sage_core.platform.records import StoredRun
    from sage_core.platform.store import JobStore


@click.group(cls=Group)
def runs() -> None:
    """List, show, resume, redrive, fork and prune runs of this project.

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

    project = project_here()

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
            click.echo(f"{such} in {place_of(project)}\n  help: {ELSEWHERE}", err=True)

    # Watching waits for the first run, and so may make its store.
    if has_store(project) or watch:
        with project.open_store() as store:
            present(store, read, say, as_json=as_json, watch=watch)
    else:
        print_json([]) if as_json else say([])


@runs.command("show")
@click.argument("run_id")
@click.option("--jobs", "by_job", is_flag=True, help="Draw one line per job.")
@click.option("--errors", is_flag=True, help="Only the rows that failed and were skipped: counts, then each of them.")
@watch_option
@json_option
@pass_app
def show(app: App, run_id: str, by_job: bool, errors: bool, as_json: bool, watch: bool) -> None:
    """Show one run: its status, steps, timeline, skipped rows and what was in its way.

    RUN_ID may be cut short as long as only one run starts with it.

    \b
    Examples:
      sage runs show 261122-153000-a1b2c3
      sage runs show 261122 --json
      sage runs show 261122 --jobs --watch
      sage runs show 261122 --errors
    """
    from sage_core.cli.shown import ShownRun  # noqa: PLC0415 - `--help` needs none of it
    from sage_core.platform.records import ENDED  # noqa: PLC0415 - see above

    project = project_of(run_id)
    with project.open_store() as store:
        shown = ShownRun(store.run(run_id).id, project.paths, by_job=by_job, as_json=as_json, watch=watch)
        over = lambda found: found["status"] in ENDED  # noqa: E731
        say = shown.say_errors if errors else shown.say
        present(store, shown.read, say, as_json=as_json, watch=watch, over=over)


@runs.command("cancel")
@click.argument("run_id")
@json_option
@pass_app
def cancel(app: App, run_id: str, as_json: bool) -> None:
    """Stop a run; what is finished is kept, and it can be resumed.

    \b
    Examples:
      sage runs cancel 261122-153000-a1b2c3
    """
    from sage_core.kernel.runtime.finish import announce  # noqa: PLC0415 - `--help` needs none of it

    with project_of(run_id).open_store() as store:
        run = store.run(run_id)
        stopped = store.cancel_run(run.id)
        status = announce(store, app.host, run.id).status
    if as_json:
        print_json({"run_id": run.id, "status": status, "cancelled": stopped})
    else:
        click.echo(f"run {run.id}: {'cancelled' if stopped else f'was over already ({status})'}")


@runs.command("resume")
@click.argument("run_id")
@click.option("--workers", type=click.IntRange(1, 64), metavar="N", help="Use N worker processes.")
@click.option("--inline", is_flag=True, help="Run everything in this process.")
@click.option("--yes", is_flag=True, help="Go on with the stored plan, whatever has changed since.")
@json_option
@pass_app
def resume(app: App, run_id: str, workers: int | None, inline: bool, yes: bool, as_json: bool) -> None:
    """Continue a run that failed, was interrupted, or whose process is gone; what is done is not done again.

    A run that was queued goes back to its queue, whose workers do it; this command waits for them, and Ctrl-C leaves
    the run running. Any other run is driven by this command.

    A run goes on with the plan it was started with. Where its workflow file or the code of its operators has changed
    since, the difference is shown first, and you are asked.

    \b
    Examples:
      sage runs resume 261122-153000-a1b2c3
      sage runs resume 261122 --workers 4 --json
      sage runs resume 261122 --yes
    """
    from sage_core.cli.invoke import wait_for  # noqa: PLC0415 - `--help` needs none of it
    from sage_core.cli.run import settings_of  # noqa: PLC0415 - see above
    from sage_core.kernel.runtime.autoscale import ensure_workers  # noqa: PLC0415 - see above
    from sage_core.kernel.runtime.redrive import is_driven, requeue  # noqa: PLC0415 - see above
    from sage_core.platform.records import ENDED  # noqa: PLC0415 - see above

    settings = settings_of(workers, inline)
    project = project_of(run_id)
    with project.open_store() as store:
        run = store.run(run_id)
    if is_driven(run):
        go_on(app, run, project, settings, yes=yes, as_json=as_json)
        return
    if settings.workers is not None:
        raise UsageError(f"Run {run.id} belongs to the workers of queue {run.queue}.", "leave out --workers, --inline")
    if run.supervisor or run.status in ("failed", "cancelled"):
        _agree(app, run, project, yes=yes, as_json=as_json)
        requeue(run.id, host=app.host, project=project, redrive=False)
    elif run.status not in ENDED:
        ensure_workers(project, run.queue)
    wait_for(run.id, run.workflow, project, as_json)


@runs.command("redrive")
@click.argument("run_id")
@click.option("--workers", type=click.IntRange(1, 64), metavar="N", help="Use N worker processes.")
@click.option("--inline", is_flag=True, help="Run everything in this process.")
@click.option("--yes", is_flag=True, help="Go on with the stored plan, whatever has changed since.")
@json_option
@pass_app
def redrive(app: App, run_id: str, workers: int | None, inline: bool, yes: bool, as_json: bool) -> None:
    """Try again what failed in a run that has ended: failed jobs, and in partial results the rows that were skipped.

    Of a partial result only the rows that failed are computed again, each with what descends from it; the others are
    kept. A run that was queued goes back to its queue; any other is driven by this command.

    \b
    Examples:
      sage runs redrive 261122-153000-a1b2c3
      sage runs redrive 261122 --json
    """
    redrive_run(app, run_id, workers, inline, yes=yes, as_json=as_json)


@runs.command("fork")
@click.argument("run_id")
@click.option("--from", "step", required=True, metavar="STEP", help="Compute this step, and what follows, anew.")
@click.option("--param", "-p", "params", multiple=True, metavar="NAME=VALUE", help="Change a parameter; repeatable.")
@click.option("--workers", type=click.IntRange(1, 64), metavar="N", help="Use N worker processes.")
@click.option("--inline", is_flag=True, help="Run everything in this process.")
@json_option
@pass_app
def fork(
    app: App, run_id: str, step: str, params: tuple[str, ...], workers: int | None, inline: bool, as_json: bool
) -> None:
    """Start another run over the graph of a run, in which STEP and all that follows from it is computed anew.

    What comes before STEP is reused, as far as its code and inputs are those of an earlier result.

    \b
    Examples:
      sage runs fork 261122-153000-a1b2c3 --from answer
      sage runs fork 261122 --from rank --param top=5 --json
    """
    from sage_core.cli.outcome import finish  # noqa: PLC0415 - `--help` needs none of it
    from sage_core.cli.parameters import parse  # noqa: PLC0415 - see above
    from sage_core.cli.run import settings_of  # noqa: PLC0415 - see above
    from sage_core.cli.screen import Screen  # noqa: PLC0415 - see above
    from sage_core.kernel.runtime.fork import fork as start  # noqa: PLC0415 - see above

    settings, given = settings_of(workers, inline), parse(params)
    project = project_of(run_id)
    with project.open_store() as store:
        run = store.run(run_id)
    with Screen(run.workflow, as_json=as_json) as screen:
        report = start(run, step, given, host=app.host, project=project, settings=settings, watch=screen.watch)
    finish(report, as_json=as_json, seconds=screen.seconds)


@runs.command("prune")
@click.option("--older-than", "older", type=Duration(), metavar="TIME", help="Runs that ended longer ago, such as 30d.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@json_option
def prune(older: float | None, dry_run: bool, as_json: bool) -> None:
    """Remove ended runs, with their jobs, and the results and files that no remaining run refers to.

    Without --older-than, [retention] of sage.toml says what goes; remembered rows go by its memo_days alone. Unfinished
    runs keep all they have. What was removed is computed again when a workflow asks for it.

    \b
    Examples:
      sage runs prune --older-than 30d --dry-run
      sage runs prune --older-than 30d --json
      sage runs prune
    """
    import msgspec  # noqa: PLC0415 - `--help` needs none of it

    from sage_core.kernel.runtime import retention  # noqa: PLC0415 - see above
    from sage_core.platform.shared import artifacts_of  # noqa: PLC0415 - see above

    project = project_here("run was ever started here")
    config = project.config.retention
    if older is not None:
        config = msgspec.structs.replace(config, runs_days=older / 86_400)
    if config.runs_days is None and config.memo_days is None:
        raise UsageError(
            "Nothing says how long runs are kept.", "add --older-than 30d, or set [retention] runs_days in sage.toml"
        )
    with project.open_store() as store:
        artifacts = artifacts_of(project.paths.artifacts, store)
        gone = retention.prune(store, artifacts, config, dry_run=dry_run, thorough=True)
    counts = msgspec.structs.asdict(gone)
    if as_json:
        print_json({"dry_run": dry_run, **counts})
    else:
        found = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        click.echo(f"{'would remove' if dry_run else 'removed'}: {found or 'nothing'}")


def redrive_run(app: App, run_id: str, workers: int | None, inline: bool, *, yes: bool = False, as_json: bool) -> None:
    """Try again what failed in a run."""
    from sage_core.cli.run import settings_of  # noqa: PLC0415 - `--help` needs none of it
    from sage_core.kernel.runtime.redrive import failures_in, is_driven, requeue  # noqa: PLC0415 - see above

    settings = settings_of(workers, inline)
    project = project_of(run_id)
    with project.open_store() as store:
        run = store.run(run_id)
        failed = failures_in(store, run)
    if is_driven(run):
        go_on(app, run, project, settings, yes=yes, as_json=as_json, redrive=True)
        return
    started = requeue(run.id, host=app.host, project=project)
    if as_json:
        found = {"run_id": run.id, "queue": run.queue, "jobs": failed.jobs, "rows": failed.rows}
        print_json({**found, "workers_started": started})
    else:
        click.echo(f"run {run.id}: queued again in {run.queue}; {failed.jobs} failed jobs, {failed.rows} failed rows")


def go_on(
    app: App,
    run: StoredRun,
    project: Project,
    settings: Settings,
    *,
    yes: bool,
    as_json: bool,
    redrive: bool = False,
) -> None:
    """Drive another session of a run, and print what it came to."""
    from sage_core.cli.outcome import finish  # noqa: PLC0415 - `--help` needs none of it
    from sage_core.cli.screen import Screen  # noqa: PLC0415 - see above
    from sage_core.kernel.runtime import launch  # noqa: PLC0415 - see above

    _agree(app, run, project, yes=yes, as_json=as_json)
    with Screen(run.workflow, as_json=as_json) as screen:
        report = launch.resume(
            run.id, host=app.host, project=project, settings=settings, watch=screen.watch, redrive=redrive
        )
    finish(report, as_json=as_json, seconds=screen.seconds)


def _agree(app: App, run: StoredRun, project: Project, *, yes: bool, as_json: bool) -> None:
    """Show what has changed since a run was started, and ask whether it goes on all the same."""
    from sage_core.kernel.runtime import launch, pins  # noqa: PLC0415 - `--help` needs none of it

    def load(path: Path, profile: str | None) -> Graph:
        return launch.load(path, app.host, launch.find_project(path.parent), profile=profile)

    workflow, code = pins.changes_since(run, app.host, load)
    if not workflow and not code:
        return
    click.echo(f"Since run {run.id} was started:", err=True)
    for line in (*workflow, *code):
        click.echo(f"  {line}", err=True)
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise UsageError(
                f"Run {run.id} was started with another workflow or other code than there is now.",
                "to go on with the plan it was started with, add --yes; to start anew: sage run WORKFLOW",
            )
        click.confirm("Go on with the plan it was started with?", abort=True, err=True)
    if code:
        with project.open_store() as store, store.transaction() as tx:
            pins.repin(tx, run, app.host)
