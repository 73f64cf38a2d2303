"""Schedules: what is due is fired, each time once, by whichever process looks first.

A fire time is a row, unique by schedule and time, and inserted in one transaction with its run. The database's clock
decides what is due.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime, tzinfo
from typing import Any

import msgspec

from sage_core.common.errors import SageError, StoreError, UnknownName, UsageError
from sage_core.common.host import Host
from sage_core.common.records import Record
from sage_core.common.telemetry import log
from sage_core.kernel.runtime.deployments import prepare_start, start
from sage_core.kernel.runtime.finish import announce_left
from sage_core.kernel.runtime.launch import Project
from sage_core.kernel.runtime.submit import Order
from sage_core.kernel.runtime.triggers import Kind, due, kind_of, times
from sage_core.platform.reader import Reader
from sage_core.platform.records import FireOutcome, FireRow, ScheduleRow
from sage_core.platform.store import JobStore
from sage_core.platform.transaction import Transaction

#: Fire times that one transaction deals with at most.
BATCH = 50
#: Fire times that one backfill deals with at most.
BACKFILL = 10_000


class Fired(Record):
    """A fire time and what became of it; `fire_at` is epoch ms."""

    schedule: str
    fire_at: int
    outcome: FireOutcome
    run_id: str | None = None
    queue: str = ""
    error: str = ""


def fire_due(project: Project, host: Host, *, store: JobStore | None = None) -> list[Fired]:
    """Fire every schedule that is due; cheap where none is, and safe to call from any number of processes at once.

    A schedule that cannot be read here, because a plugin or a time zone is missing, is left as it is and reported as
    failed; a run that cannot be made is recorded as failed and not tried again.
    """
    with contextlib.ExitStack() as stack:
        store = store or stack.enter_context(project.open_store())
        return _fire_due(project, host, store)


def next_due_ms(store: JobStore) -> int | None:
    """Milliseconds until the next schedule falls due; 0 is now, None is never."""
    moment = store.next_fire()
    return None if moment is None else max(0, moment - store.now())


def _fire_due(project: Project, host: Host, store: JobStore) -> list[Fired]:
    found: list[Fired] = []
    stuck: set[str] = set()
    while next_due_ms(store) == 0:
        row = None
        try:
            with store.transaction() as tx:
                row = next((row for row in tx.due_schedules(limit=len(stuck) + 1) if row.id not in stuck), None)
                if row is None:
                    return found
                fires = Fires(tx, row, host, project)
                dues, next_at = due(fires.kind, row.next_at or 0, tx.now(), limit=BATCH)
                told = [fires.fire(each.at) if each.act == "fire" else fires.record(each.at, "missed") for each in dues]
                tx.move_schedule(row.id, next_at)
            if fires.replaced:
                announce_left(store, host, for_ms=0)
        except StoreError:
            raise
        except SageError as error:
            # One that cannot be fired must not hold up the others.
            stuck.add(row.id if row else "")
            told = [Fired(schedule=row.id, fire_at=row.next_at or 0, outcome="failed", error=str(error))] if row else []
        for each in told:
            if each is not None:
                log("schedule_fired", **msgspec.structs.asdict(each))
                found.append(each)
    return found


class Fires:
    """Writes what becomes of fire times of one schedule, inside a transaction."""

    def __init__(self, tx: Transaction, row: ScheduleRow, host: Host, project: Project) -> None:
        self._tx, self._row, self._host, self._project = tx, row, host, project
        self._spec = _spec(row)
        self.kind = _kind(row, host)
        #: Whether a run was cancelled to make room.
        self.replaced = False

    def fire(self, at: int, *, alone: bool = True) -> Fired | None:
        """Queue the run of a fire time; None when that time has been dealt with already.

        Args:
            alone: heed what the trigger says of a run that is not finished.
        """
        overlap = self._spec.get("overlap", "skip") if alone else "queue"
        before = self._tx.unfinished(self._row.id) if overlap != "queue" else []
        if before and overlap == "skip":
            return self.record(at, "skipped")
        name, params = self._row.deployment, self._spec["params"]
        try:
            begun = prepare_start(self._tx, name, params, Order(queue=""), host=self._host, project=self._project)
        except SageError as error:
            return self.record(at, "failed", error=str(error))
        told = self.record(at, "fired", run_id=begun.run_id, queue=begun.order.queue)
        if told is not None:
            for run in before:
                self.replaced = True
                self._tx.finish_run(run, "cancelled", error=f"schedule {self._row.id} fired again: run {begun.run_id}")
            start(self._tx, begun, self._host)
        return told

    def record(
        self, at: int, outcome: FireOutcome, *, run_id: str | None = None, queue: str = "", error: str = ""
    ) -> Fired | None:
        """Say what became of a fire time; None when that has been said already."""
        row = FireRow(schedule=self._row.id, fire_at=at, outcome=outcome, run_id=run_id, error=error)
        if not self._tx.record_fire(row):
            return None
        return Fired(schedule=row.schedule, fire_at=at, outcome=outcome, run_id=run_id, queue=queue, error=error)


def select(reader: Reader, name: str) -> list[ScheduleRow]:
    """The schedule of an id, or all of a deployment; raises `UnknownName` with those there are."""
    rows = reader.schedules()
    found = [row for row in rows if name in (row.id, row.deployment)]
    if not found:
        raise UnknownName(
            "schedule", name, tuple(row.id for row in rows), "They come from [[triggers.cron]]: sage deploy"
        )
    return found


def pause(name: str, project: Project) -> list[str]:
    """Stop a schedule, or all of a deployment; returns their ids."""
    with project.open_store() as store, store.transaction() as tx:
        rows = select(tx, name)
        for row in rows:
            tx.switch_schedule(row.id, paused=True, next_at=row.next_at)
    return [row.id for row in rows]


def resume(name: str, host: Host, project: Project) -> list[ScheduleRow]:
    """Let a schedule, or all of a deployment, go on from now; what fell into its pause is not made up for."""
    with project.open_store() as store, store.transaction() as tx:
        for row in select(tx, name):
            if row.paused:
                tx.switch_schedule(row.id, paused=False, next_at=_kind(row, host).after(tx.now()))
        return select(tx, name)


def backfill(name: str, begin: datetime, end: datetime | None, *, host: Host, project: Project) -> list[Fired]:
    """Fire the times from `begin` to `end` that have not been dealt with, whatever the schedule says of overlaps.

    Args:
        begin: in the schedule's zone where it names none.
        end: None is now.
    """
    with project.open_store() as store:
        rows = select(store, name)
        if len(rows) != 1:
            ids = ", ".join(row.id for row in rows)
            raise UsageError(f"{name!r} has {len(rows)} schedules", f"name one of them: {ids}")
        kind, now = _kind(rows[0], host), store.now()
        first, last = _ms(begin, kind.zone), now if end is None else _ms(end, kind.zone)
        if last > now:
            raise UsageError(
                "the end of a backfill lies in the future", "what is to come fires by itself: leave out --to"
            )
        if not 0 <= first <= last:
            problem = "ends before it begins" if first >= 0 else "begins before 1970"
            raise UsageError(f"the backfill {problem}", "give a time that has passed, and not a later one than --to")
        moments = times(kind, first, last, limit=BACKFILL + 1)
        if len(moments) > BACKFILL:
            raise UsageError(f"more than {BACKFILL:,} fire times lie between", "backfill them in parts: --from, --to")
        return list(_backfill(store, rows[0], moments, host, project))


def _backfill(store: JobStore, row: ScheduleRow, moments: list[int], host: Host, project: Project) -> Iterator[Fired]:
    for first in range(0, len(moments), BATCH):
        with store.transaction() as tx:
            fires = Fires(tx, row, host, project)
            told = [fires.fire(at, alone=False) for at in moments[first : first + BATCH]]
        yield from (each for each in told if each is not None)


def _ms(moment: datetime, zone: tzinfo) -> int:
    return round((moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp() * 1000)


def _spec(row: ScheduleRow) -> dict[str, Any]:
    return msgspec.json.decode(row.spec, type=dict[str, Any])


def _kind(row: ScheduleRow, host: Host) -> Kind:
    # Cron is the one kind that is a schedule; the others are declared for those who serve them.
    return kind_of(host, "cron", _spec(row))
