"""`sage schedules`: list, pause, resume, backfill, and have `sage tick` called."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sage_core.cli.app import App, pass_app
from sage_core.cli.group import Group
from sage_core.cli.output import json_option, print_json, print_table
from sage_core.cli.stored import project_here
from sage_core.cli.watch import look, watch_option
from sage_core.cli.worker import Duration

if TYPE_CHECKING:
    from sage_core.kernel.runtime.launch import Project
    from sage_core.platform.store import JobStore

#: What ``[[triggers.cron]]`` says of a schedule.
_SAID = ("schedule", "timezone", "overlap", "catchup")


class Moment(click.ParamType[datetime]):
    """A time of ISO 8601."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read it; click shows what is wrong with it."""
        try:
            return value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a time such as 2026-11-01 or 2026-11-01T06:30+01:00", param, ctx)


@click.group(cls=Group)
def schedules() -> None:
    """List, pause, resume and backfill schedules, and have them fired.

    A schedule is a [[triggers.cron]] of a deployment: its id is NAME/1, NAME/2 and so on, in the workflow's order.

    \b
    Examples:
      sage schedules list
      sage schedules pause nightly
      sage schedules install --print
    """


@schedules.command("list")
@watch_option
@json_option
def list_schedules(as_json: bool, watch: bool) -> None:
    """List schedules with their next and their last fire time.

    \b
    Examples:
      sage schedules list
      sage schedules list --watch
    """
    look(project_here(), describe_schedules, _say, as_json=as_json, watch=watch)


def describe_schedules(store: JobStore) -> list[dict[str, Any]]:
    """Every schedule with its next and its last fire time; times are ISO 8601, empty where there is none."""
    import msgspec  # noqa: PLC0415 - `--help` needs none of it

    from sage_core.kernel.runtime.inspect import iso  # noqa: PLC0415 - see above

    found = []
    for row in store.schedules():
        spec = msgspec.json.decode(row.spec)
        last = next(iter(store.fires(row.id, limit=1)), None)
        found.append(
            {
                "id": row.id,
                "deployment": row.deployment,
                **{name: str(spec.get(name, "")) for name in _SAID},
                "paused": row.paused,
                "next_at": "" if row.next_at is None else iso(row.next_at),
                # The last fire time that was dealt with, and how.
                "last_at": iso(last.fire_at) if last else "",
                **{name: getattr(last, name, "") for name in ("outcome", "error")},
                "run_id": last.run_id if last else None,
            }
        )
    return found


def _say(rows: list[dict[str, Any]]) -> None:
    if not rows:
        click.echo("No schedules\n  help: give a workflow a [[triggers.cron]], then: sage deploy WORKFLOW", err=True)
        return
    print_table(
        ["schedule", "when", "timezone", "overlap", "catchup", "next", "last", "last outcome"],
        [(*(row[name] for name in ("id", *_SAID, "next_at", "last_at")), _outcome(row)) for row in rows],
    )


@schedules.command("pause")
@click.argument("name")
@json_option
def pause(name: str, as_json: bool) -> None:
    """Stop a schedule, or all of a deployment; runs that were started go on.

    \b
    Examples:
      sage schedules pause nightly/1
    """
    from sage_core.kernel.runtime import schedules as known  # noqa: PLC0415 - `--help` needs none of it

    ids = known.pause(name, project_here(f"schedule is named {name!r}"))
    print_json({"paused": ids}) if as_json else click.echo(f"paused {', '.join(ids)}")


@schedules.command("resume")
@click.argument("name")
@json_option
@pass_app
def resume(app: App, name: str, as_json: bool) -> None:
    """Let a schedule, or all of a deployment, go on from now; what fell into the pause is not made up for.

    \b
    Examples:
      sage schedules resume nightly/1
    """
    from sage_core.kernel.runtime import schedules as known  # noqa: PLC0415 - `--help` needs none of it
    from sage_core.kernel.runtime.inspect import iso  # noqa: PLC0415 - see above

    rows = known.resume(name, app.host, project_here(f"schedule is named {name!r}"))
    moments = {row.id: None if row.next_at is None else iso(row.next_at) for row in rows}
    if as_json:
        print_json({"resumed": moments})
    else:
        for id, next_at in moments.items():
            click.echo(f"schedule {id}: {next_at or 'never fires'}")


@schedules.command("backfill")
@click.argument("name")
@click.option(
    "--from", "begin", type=Moment(), required=True, metavar="TIME", help="First time, in the schedule's zone."
)
@click.option("--to", "end", type=Moment(), metavar="TIME", help="Last time; default: now.")
@click.option("--no-spawn", is_flag=True, help="Start no workers.")
@json_option
@pass_app
def backfill(app: App, name: str, begin: datetime, end: datetime | None, no_spawn: bool, as_json: bool) -> None:
    """Fire the times of a schedule between two moments that were not dealt with, each once.

    Every one of them gets a run, whatever the schedule says of overlaps and of catching up.

    \b
    Examples:
      sage schedules backfill nightly/1 --from 2026-11-01 --to 2026-11-07T23:59
    """
    from sage_core.kernel.runtime import schedules as known  # noqa: PLC0415 - `--help` needs none of it
    from sage_core.kernel.runtime.autoscale import wake  # noqa: PLC0415 - see above
    from sage_core.kernel.runtime.inspect import iso  # noqa: PLC0415 - see above

    project = project_here(f"schedule is named {name!r}")
    fired = known.backfill(name, begin, end, host=app.host, project=project)
    if not no_spawn:
        wake(project)
    if as_json:
        print_json([{"fire_at": iso(each.fire_at), "outcome": each.outcome, "run_id": each.run_id} for each in fired])
    else:
        for each in fired:
            click.echo(f"{iso(each.fire_at)}: {each.outcome}{f', run {each.run_id}' if each.run_id else ''}")
        click.echo(f"{len(fired)} fire times", err=True)
    for error in dict.fromkeys(each.error for each in fired if each.error):
        click.echo(f"Error: {error}", err=True)
    if any(each.error for each in fired):
        raise click.exceptions.Exit(1)


@schedules.command("install")
@click.option("--every", type=Duration(), default="1m", show_default=True, metavar="TIME", help="How often.")
@click.option("--print", "only_print", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--replace", is_flag=True, help="Replace what was installed for this folder and says something else.")
@json_option
def install(every: float, only_print: bool, replace: bool, as_json: bool) -> None:
    """Have `sage tick` called in this project: by a systemd timer of yours, or without systemd by your crontab.

    \b
    Examples:
      sage schedules install --print
      sage schedules install --every 5m
    """
    from sage_core.cli.timer import CrontabLine, SystemdTimer, has_systemd  # noqa: PLC0415 - `--help` needs none of it
    from sage_core.kernel.runtime.triggers import GRACE_MS  # noqa: PLC0415 - see above

    if every < 1:
        raise click.UsageError("--every is at least 1s")
    folder = _root(project_here())
    timer = SystemdTimer(folder, every) if has_systemd() else CrontabLine(folder, every)
    if every * 1000 > GRACE_MS:
        late = f"{GRACE_MS // 60_000} minutes"
        click.echo(
            f'warning: schedules with catchup = "none" miss times that are dealt with more than {late} late', err=True
        )
    texts = {str(path): text for path, text in timer.files().items()} if isinstance(timer, SystemdTimer) else {}
    if isinstance(timer, CrontabLine):
        texts = {"crontab": timer.line}
    done = [] if only_print else timer.install(replace=replace)
    if as_json:
        print_json({"files": texts, "installed": not only_print})
    elif only_print:
        click.echo("\n".join(f"# {path}\n{text}" for path, text in texts.items()))
    else:
        click.echo("\n".join(done))


def _outcome(row: dict[str, Any]) -> str:
    said = f"{row['outcome']}: {row['error'].splitlines()[0]}" if row["error"] else row["outcome"]
    return f"{said} (paused)".strip() if row["paused"] else said


def _root(project: Project) -> Path:
    """The folder that a tick has to run in to find this project."""
    folders = (project.folder, *project.folder.parents)
    return next((each for each in folders if (each / "sage.toml").exists() or (each / ".sage").is_dir()), folders[0])
