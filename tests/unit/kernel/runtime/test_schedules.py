"""Tests of sage_core.kernel.runtime.schedules, on both databases: what is due is fired, once, and told."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sage_core.builtins import default_host
from sage_core.common.errors import StaleAttempt, UnknownName, UsageError
from sage_core.kernel.runtime import deployments, schedules
from sage_core.kernel.runtime.schedules import Fired, backfill, fire_due, next_due_ms, pause, resume
from sage_core.kernel.runtime.triggers import GRACE_MS
from sage_core.platform.records import ScheduleRow
from tests.postgres import schema_url
from tests.unit.kernel.runtime.schedule_field import STEP, Field
from tests.unit.kernel.runtime.schedule_operators import CRON, MINUTE, PLUGINS, WORKFLOW, Operators


@pytest.fixture(params=["sqlite", "postgresql"])
def field(request: pytest.FixtureRequest, tmp_path: Path, sage_home: Path) -> Field:
    return Field(tmp_path, f"sqlite:///{tmp_path}/sage.db" if request.param == "sqlite" else schema_url(tmp_path))


def test_nothing_is_due_before_its_time(field: Field) -> None:
    deployed = field.deploy()
    (schedule,) = deployed.schedules
    assert schedule.next_at is not None
    assert schedule.next_at == field.latest() + STEP
    assert 0 < schedule.next_at - field.now() <= STEP
    assert field.fire() == []
    with field.flows.open_store() as store:
        left = next_due_ms(store)
        assert left is not None
        assert 0 < left <= STEP
    assert field.runs() == {}


def test_without_schedules_nothing_is_ever_due(field: Field) -> None:
    field.deploy("")
    with field.flows.open_store() as store:
        assert next_due_ms(store) is None
    assert field.fire() == []


def test_a_due_time_queues_one_run_and_moves_on(field: Field) -> None:
    field.deploy(queue="nightly", given={"word": "good"})
    at = field.make_due(0)
    (fired,) = field.fire()
    assert (fired.schedule, fired.fire_at, fired.outcome, fired.queue) == ("report/1", at, "fired", "nightly")
    assert field.fire() == []
    assert field.runs() == {fired.run_id: "queued"}
    assert field.fires() == [(at, "fired", fired.run_id)]
    with field.flows.open_store() as store:
        run = store.run(fired.run_id or "")
        assert (run.queue, run.deployment, run.supervisor, run.workflow) == ("nightly", "report", "", "report")
        assert [(job.state, job.queue) for job in store.jobs(run.id)] == [("ready", "nightly")]
        (schedule,) = store.schedules()
        assert schedule.next_at == at + STEP


def test_a_trigger_gives_params_over_those_of_the_deployment(field: Field) -> None:
    field.deploy(CRON + 'params = { word = "trigger" }\n', given={"word": "deployed"})
    field.make_due(0)
    (fired,) = field.fire()
    with field.flows.open_store() as store:
        assert b"trigger" in store.run(fired.run_id or "").params


@pytest.mark.parametrize(
    ("catchup", "ago", "expected"),
    [
        ("none", 0, ["fired"]),
        ("none", 3 * STEP, ["missed", "fired"]),
        ("last", 3 * STEP, ["missed", "fired"]),
        ("all", 3 * STEP, ["fired"] * 4),
    ],
)
def test_what_is_caught_up(field: Field, catchup: str, ago: int, expected: list[str]) -> None:
    field.deploy(f'{CRON}catchup = "{catchup}"\noverlap = "queue"\n')
    first = field.make_due(ago)
    # The latest time is at most STEP old, and `none` forgives as much.
    assert STEP <= GRACE_MS
    fired = field.fire()
    assert [each.outcome for each in fired] == expected
    assert fired[0].fire_at == first
    assert fired[-1].fire_at == first + ago
    assert len(field.runs()) == expected.count("fired")


def test_without_catch_up_a_late_time_is_missed(field: Field) -> None:
    field.deploy(f'[[triggers.cron]]\nschedule = "{field.every(30)} * * * *"\n')
    at = field.latest() - 13 * MINUTE
    with field.flows.open_store() as store, store.transaction() as tx:
        tx.move_schedule("report/1", at)
    assert field.fire() == [Fired(schedule="report/1", fire_at=at, outcome="missed")]
    assert field.runs() == {}


def test_catching_up_goes_on_over_transactions(field: Field) -> None:
    field.deploy(f'{CRON}catchup = "all"\noverlap = "queue"\n')
    first = field.make_due((schedules.BATCH + 20) * STEP)
    fired = field.fire()
    assert [each.fire_at for each in fired] == [first + n * STEP for n in range(schedules.BATCH + 21)]
    assert len(field.runs()) == schedules.BATCH + 21


def test_a_time_that_was_dealt_with_is_not_fired_again(field: Field) -> None:
    field.deploy(f'{CRON}catchup = "all"\noverlap = "queue"\n')
    field.make_due(STEP)
    first, second = field.fire()
    with field.flows.open_store() as store, store.transaction() as tx:
        tx.move_schedule("report/1", first.fire_at)
    assert field.fire() == []
    assert list(field.runs()) == [first.run_id, second.run_id]


def test_a_run_that_is_unfinished_makes_the_next_be_skipped(field: Field) -> None:
    field.deploy(f'{CRON}catchup = "all"\n')
    at = field.make_due(2 * STEP)
    first, *others = field.fire()
    assert others == [Fired(schedule="report/1", fire_at=at + n * STEP, outcome="skipped") for n in (1, 2)]
    assert list(field.runs()) == [first.run_id]


def test_overlap_queue_fires_anyway(field: Field) -> None:
    field.deploy(f'{CRON}catchup = "all"\noverlap = "queue"\n')
    field.make_due(STEP)
    assert [each.outcome for each in field.fire()] == ["fired", "fired"]
    assert list(field.runs().values()) == ["queued", "queued"]


def test_overlap_cancel_previous_cancels_it(field: Field) -> None:
    field.deploy(f'{CRON}catchup = "all"\noverlap = "cancel_previous"\n')
    field.make_due(STEP)
    first, second = field.fire()
    assert field.runs() == {first.run_id: "cancelled", second.run_id: "queued"}
    with field.flows.open_store() as store:
        assert store.runs_unheard(for_ms=0) == [], "the plugins have heard"
        assert store.run(first.run_id or "").error == f"schedule report/1 fired again: run {second.run_id}"
        assert [job.state for job in store.jobs(first.run_id or "")] == ["cancelled"]


def test_overlap_cancel_previous_takes_the_job_from_whoever_runs_it(field: Field) -> None:
    field.deploy(f'{CRON}catchup = "all"\noverlap = "cancel_previous"\n')
    at = field.make_due(0)
    (first,) = field.fire()
    with field.flows.open_store() as store:
        (job,) = store.claim("w", queue="default", lease_ms=60_000)
        with store.transaction() as tx:
            tx.move_schedule("report/1", at - STEP)
        second, again = field.fire(), field.fire()
        assert ([each.outcome for each in second], again) == (["fired"], [])
        assert store.run(first.run_id or "").status == "cancelled"
        with pytest.raises(StaleAttempt):
            store.fail(job.id, job.fence, "late", retry_in_ms=None)


def test_an_ended_run_does_not_count_as_overlapping(field: Field) -> None:
    field.deploy(f'{CRON}catchup = "all"\n')
    field.make_due(STEP)
    first, second = field.fire()
    assert (first.outcome, second.outcome) == ("fired", "skipped")
    field.end(first.run_id)
    with field.flows.open_store() as store, store.transaction() as tx:
        tx.move_schedule("report/1", first.fire_at - STEP)
    assert [each.outcome for each in field.fire()] == ["fired"]


def test_a_schedule_is_paused_and_goes_on_from_now(field: Field) -> None:
    field.deploy(f'{CRON}catchup = "all"\n')
    assert pause("report/1", field.project) == ["report/1"]
    field.make_due(3 * STEP)
    assert field.fire() == []
    with field.flows.open_store() as store:
        assert next_due_ms(store) is None
    # Deploying again keeps the switch.
    assert [schedule.paused for schedule in field.deploy(f'{CRON}catchup = "all"\n').schedules] == [True]
    (resumed,) = resume("report", field.host, field.project)
    assert not resumed.paused
    assert resumed.next_at is not None
    assert resumed.next_at > field.now()
    assert field.fire() == []


def moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def test_a_backfill_fires_each_time_once(field: Field) -> None:
    field.deploy()
    end = field.latest()
    fired = backfill("report/1", moment(end - 4 * STEP), None, host=field.host, project=field.project)
    assert [each.fire_at for each in fired] == [end - n * STEP for n in (4, 3, 2, 1, 0)]
    assert {each.outcome for each in fired} == {"fired"}
    more = backfill("report", moment(end - 6 * STEP), moment(end), host=field.host, project=field.project)
    assert [each.fire_at for each in more] == [end - n * STEP for n in (6, 5)]
    with field.flows.open_store() as store, store.transaction() as tx:
        tx.move_schedule("report/1", end)
    # What was backfilled is not fired again when it falls due.
    assert field.fire() == []
    assert len(field.runs()) == 7


def test_a_backfill_reads_times_in_the_zone_of_the_schedule(field: Field) -> None:
    field.deploy(f'{CRON}timezone = "Asia/Kolkata"\n')
    local = datetime(2026, 1, 1, 6, 0)
    (fired,) = backfill("report/1", local, local + timedelta(minutes=4), host=field.host, project=field.project)
    assert timedelta() <= moment(fired.fire_at) - datetime(2026, 1, 1, 0, 30, tzinfo=UTC) <= timedelta(minutes=4)


def test_what_cannot_be_backfilled(field: Field) -> None:
    field.deploy(CRON + CRON)
    now = field.now()
    with pytest.raises(UsageError, match="'report' has 2 schedules\n  help: name one of them: report/1, report/2"):
        backfill("report", moment(0), None, host=field.host, project=field.project)
    with pytest.raises(UsageError, match="the backfill ends before it begins\n  help: give a time that has passed"):
        backfill("report/1", moment(STEP), moment(0), host=field.host, project=field.project)
    with pytest.raises(UsageError, match="the backfill begins before 1970"):
        backfill("report/1", datetime(1, 1, 1), None, host=field.host, project=field.project)
    with pytest.raises(UsageError, match="lies in the future"):
        backfill("report/1", moment(0), moment(now + STEP), host=field.host, project=field.project)
    with pytest.raises(UsageError, match=r"more than 10,000 fire times lie between\n  help: backfill them in parts"):
        backfill("report/1", moment(0), None, host=field.host, project=field.project)
    with pytest.raises(UnknownName, match=r"No schedule is named 'report/3'\. Did you mean 'report/2'"):
        pause("report/3", field.project)


def test_a_run_that_cannot_be_made_is_recorded_and_not_tried_again(field: Field) -> None:
    field.deploy()
    at = field.make_due(0)
    # Another machine, where the plugin with the operators is missing.
    host = default_host({"triggers": PLUGINS["triggers"]})
    (fired,) = fire_due(field.project, host)
    assert (fired.outcome, fired.run_id) == ("failed", None)
    assert "s.words" in fired.error
    assert fire_due(field.project, host) == []
    with field.flows.open_store() as store:
        (row,) = store.fires()
        assert (row.fire_at, row.outcome, row.error) == (at, "failed", fired.error)


def test_a_run_that_no_node_could_do_is_recorded_too(field: Field) -> None:
    graph = field.flows.graph(
        WORKFLOW + CRON.replace("*/5", field.every(5)) + '\n[steps.upper.needs]\nlabels = ["tape"]\n'
    )
    deployments.deploy(graph, {}, host=field.host, project=field.project)
    field.make_due(0)
    (fired,) = field.fire()
    assert (fired.outcome, fired.run_id) == ("failed", None)
    assert "step 'upper' can run nowhere" in fired.error
    assert field.fire() == []
    (again,) = backfill(
        "report/1", moment(field.latest() - STEP), moment(field.latest()), host=field.host, project=field.project
    )
    assert (again.fire_at, again.outcome, again.error) == (field.latest() - STEP, "failed", fired.error)
    assert field.runs() == {}


def test_deploying_again_changes_later_runs_and_leaves_those_that_wait(field: Field) -> None:
    cron = f'{CRON.replace("*/5", field.every(5))}overlap = "queue"\n'
    field.deploy(cron)
    field.make_due(0)
    (before,) = field.fire()
    graph = field.flows.graph(WORKFLOW.replace("hello", "anew") + cron)
    deployments.deploy(graph, {}, host=field.host, project=field.project)
    at = moment(field.latest() - STEP)
    (after,) = backfill("report/1", at, at, host=field.host, project=field.project)
    with field.flows.open_store() as store:
        old, new = (store.run(each.run_id or "") for each in (before, after))
    assert (old.status, new.status) == ("queued", "queued")
    assert (b"hello" in old.params, b"anew" in new.params, old.graph_hash == new.graph_hash) == (True, True, False)


def test_a_schedule_that_cannot_be_read_here_waits_and_holds_up_no_other(field: Field) -> None:
    field.deploy(CRON)
    field.deploy(CRON, name="other")
    for id in ("report/1", "other/1"):
        field.make_due(0, id)
    with field.flows.open_store() as store, store.transaction() as tx:
        row = next(row for row in store.schedules() if row.id == "other/1")
        spec = {**json.loads(row.spec), "timezone": "Mars/Olympus"}
        tx.put_schedule(ScheduleRow(id=row.id, deployment="other", spec=json.dumps(spec), next_at=row.next_at))
    fired = {each.schedule: each for each in field.fire()}
    assert fired["report/1"].outcome == "fired"
    assert fired["other/1"].outcome == "failed"
    assert fired["other/1"].error.startswith("no time zone is named 'Mars/Olympus'")
    assert [fire[1] for fire in field.fires()] == ["fired"]
    without = default_host({"operators": Operators()})
    (stuck,) = fire_due(field.project, without)
    assert stuck.error == "No plugin fires 'cron' triggers.\n  help: sage plugins install sage-cron"


def test_a_removed_deployment_fires_nothing(field: Field) -> None:
    field.deploy()
    field.make_due(0)
    deployments.remove("report", field.project)
    assert field.fire() == []
    with field.flows.open_store() as store:
        assert (store.schedules(), store.fires()) == ([], [])


def test_an_edited_file_changes_nothing_until_it_is_deployed_again(field: Field) -> None:
    field.deploy()
    field.flows.graph(WORKFLOW.replace("hello", "edited") + CRON)
    field.make_due(0)
    (fired,) = field.fire()
    with field.flows.open_store() as store:
        assert b"hello" in store.run(fired.run_id or "").params


TICKS = """
import json, sys
from pathlib import Path
from sage_core.common.config import Config, StoreConfig
from sage_core.kernel.runtime.schedules import fire_due
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime.schedule_operators import PLUGINS
flows = Flows(Path(sys.argv[1]), PLUGINS, config=Config(store=StoreConfig(url=sys.argv[2])))
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps([(each.schedule, each.fire_at) for each in fire_due(flows.project, flows.host)]))
"""


def test_four_processes_fire_each_time_once(field: Field, tmp_path: Path) -> None:
    field.deploy(f'{CRON}catchup = "all"\noverlap = "queue"\n' * 2)
    first = {id: field.make_due(70 * STEP, id) for id in ("report/1", "report/2")}
    due = {(id, at + n * STEP) for id, at in first.items() for n in range(71)}
    command = [sys.executable, "-c", TICKS, str(tmp_path), field.url]
    ticks = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for tick in ticks:
        assert tick.stdout is not None
        assert tick.stdout.readline() == "ready\n"
    for tick in ticks:
        assert tick.stdin is not None
        tick.stdin.write("go\n")
        tick.stdin.flush()
    told = [tuple(fire) for tick in ticks for fire in json.loads(tick.communicate(timeout=60)[0])]
    assert [tick.returncode for tick in ticks] == [0] * 4
    assert sorted(told) == sorted(due)
    with field.flows.open_store() as store:
        rows = store.fires(limit=1000)
        assert {(row.schedule, row.fire_at) for row in rows} == set(told)
        assert len({row.run_id for row in rows}) == len(rows) == len(store.runs(1000))
        assert {run.id for run in store.runs(1000)} == {row.run_id for row in rows}
