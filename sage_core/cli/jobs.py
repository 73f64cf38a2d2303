"""`sage jobs`: list and show jobs, cancel one, and give failed ones another chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import click

from sage_core.cli.app import App, pass_app
from sage_core.cli.group import Group
from sage_core.cli.output import json_option, print_json, print_table
from sage_core.cli.runs import redrive_run
from sage_core.cli.stored import has_store, place_of, project_here
from sage_core.cli.watch import present, watch_option
from sage_core.common.errors import UsageError
from sage_core.common.records import JobState

if TYPE_CHECKING:
    from sage_core.platform.records import JobRow
    from sage_core.platform.store import JobStore


@click.group(cls=Group)
def jobs() -> None:
    """List, show, cancel and redrive jobs; failed ones stay listed.

    The failed ones are the dead letter: nothing takes them away before their run is pruned.

    \b
    Examples:
      sage jobs list --state failed
      sage jobs show 17
      sage jobs cancel 17
      sage jobs redrive 17
    """


@jobs.command("list")
@click.option("--state", type=click.Choice(get_args(JobState)), help="Only jobs in this state.")
@click.option("--run", "run_id", metavar="RUN", help="Only jobs of this run.")
@click.option("--queue", metavar="NAME", help="Only jobs of this queue.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many, newest first.")
@watch_option
@json_option
def list_jobs(
    state: JobState | None, run_id: str | None, queue: str | None, limit: int, watch: bool, as_json: bool
) -> None:
    """List jobs of all runs, newest first.

    \b
    Examples:
      sage jobs list --state failed
      sage jobs list --run 261122 --json
      sage jobs list --queue default --state running --watch
    """
    project = project_here(f"run has the id {run_id!r}" if run_id else "")

    def read(store: JobStore) -> list[dict[str, Any]]:
        of_run = store.run(run_id).id if run_id else None
        return [_document(job) for job in store.jobs_found(state=state, run_id=of_run, queue=queue, limit=limit)]

    def say(rows: list[dict[str, Any]]) -> None:
        if not rows:
            click.echo(f"No {f'{state} ' if state else ''}jobs in {place_of(project)}", err=True)
            return
        print_table(
            ["job", "run", "stage", "state", "attempt", "queue", "error"],
            [
                (
                    *(row["job"], row["run_id"], f"{row['stage']}/{row['part']}", row["state"]),
                    *(f"{row['attempt']} of {row['max_attempts']}", row["queue"], row["error"].partition("\n")[0]),
                )
                for row in rows
            ],
        )

    if has_store(project) or watch:
        with project.open_store() as store:
            present(store, read, say, as_json=as_json, watch=watch)
    else:
        print_json([]) if as_json else say([])


@jobs.command("show")
@click.argument("job_id", type=int, metavar="JOB")
@json_option
def show(job_id: int, as_json: bool) -> None:
    """Show one job: where it stands, and how its attempts ended.

    \b
    Examples:
      sage jobs show 17
      sage jobs show 17 --json
    """
    with project_here(f"job has the id {job_id}").open_store() as store:
        job = store.job(job_id)
        attempts = store.attempts_of(job_id)
    if as_json:
        print_json({**_document(job), "attempts": attempts})
        return
    for name, value in (
        *(("job", job.id), ("run", job.run_id), ("stage", f"{job.stage}/{job.part}"), ("state", job.state)),
        *(("queue", job.queue), ("attempt", f"{job.attempt} of {job.max_attempts}"), ("node", job.node or "")),
        *(("limit", job.limit_key or ""), ("failed rows", job.failures or ""), ("error", job.error)),
    ):
        if value != "":
            click.echo(f"{name:<12}{value}")
    if attempts:
        click.echo()
        print_table(
            ["attempt", "fence", "outcome", "seconds", "error"],
            [
                (
                    each.attempt,
                    each.fence,
                    each.outcome,
                    f"{(each.finished_at - each.started_at) / 1000:.3f}",
                    each.error,
                )
                for each in attempts
            ],
        )
    if job.state == "failed":
        click.echo(f"\nto try again: sage jobs redrive {job.id}")


@jobs.command("cancel")
@click.argument("job_ids", type=int, metavar="JOB...", nargs=-1, required=True)
@json_option
@pass_app
def cancel(app: App, job_ids: tuple[int, ...], as_json: bool) -> None:
    """Stop single jobs, queued or running; their run goes on where it can.

    The rows of a cancelled job count as failed. Where the steps of the job say on_error = "skip", they are skipped:
    what waits for the job runs without them, and the run ends as partial. Else the job fails, and its run with it.
    Either way `sage runs redrive` computes them later.

    \b
    Examples:
      sage jobs cancel 17
      sage jobs cancel 17 18 19 --json
    """
    from sage_core.kernel.runtime.cancellation import cancel_job  # noqa: PLC0415 - `--help` needs none of it

    project = project_here(f"job has the id {job_ids[0]}")
    found = []
    for job_id in dict.fromkeys(job_ids):
        done = cancel_job(job_id, host=app.host, project=project)
        found.append(done)
        if not as_json:
            rest = f"{done.failures} rows skipped" if done.state == "done" else f"failed: {done.error}"
            click.echo(f"job {done.job} of run {done.run_id}: cancelled; {rest}")
    if as_json:
        print_json(found)


@jobs.command("redrive")
@click.argument("job_id", type=int, metavar="JOB", required=False)
@click.option("--run", "run_id", metavar="RUN", help="Every failed job of this run.")
@click.option("--workers", type=click.IntRange(1, 64), metavar="N", help="Use N worker processes.")
@click.option("--inline", is_flag=True, help="Run everything in this process.")
@click.option("--yes", is_flag=True, help="Go on with the stored plan, whatever has changed since.")
@json_option
@pass_app
def redrive(
    app: App, job_id: int | None, run_id: str | None, workers: int | None, inline: bool, yes: bool, as_json: bool
) -> None:
    """Give a failed job all its attempts again; its run goes on, and with it whatever else failed in it.

    \b
    Examples:
      sage jobs redrive 17
      sage jobs redrive --run 261122 --workers 4
    """
    if (job_id is None) == (run_id is None):
        raise UsageError("Name a job or a run, and not both.", "sage jobs redrive JOB, or: sage jobs redrive --run RUN")
    if job_id is not None:
        with project_here(f"job has the id {job_id}").open_store() as store:
            job = store.job(job_id)
        if job.state != "failed" and not job.failures:
            raise UsageError(
                f"Job {job_id} is {job.state}: nothing in it failed.", "see: sage jobs list --state failed"
            )
        run_id = job.run_id
    assert run_id is not None
    redrive_run(app, run_id, workers, inline, yes=yes, as_json=as_json)


def _document(job: JobRow) -> dict[str, Any]:
    names = ("run_id", "stage", "part", "state", "queue", "attempt", "max_attempts", "failures", "node", "error")
    return {"job": job.id, **{name: getattr(job, name) for name in names}}
