"""What the store knows of deployments and schedules: mixed into `Reader` and `Transaction`.

A fire time is a row, unique by schedule and time and inserted in one transaction with its run, so however many
processes look at what is due, each fire time starts one run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from sage_core.platform.cluster import Handle
from sage_core.platform.records import DeploymentRow, FireRow, ScheduleRow

_DEPLOYMENT = DeploymentRow.__struct_fields__
_SCHEDULE = ScheduleRow.__struct_fields__
_FIRE = FireRow.__struct_fields__


class ScheduleReader:
    """Questions about deployments and schedules."""

    def deployments(self: Handle) -> list[DeploymentRow]:
        """List the deployments by name."""
        return [DeploymentRow(**dict(zip(_DEPLOYMENT, row, strict=True))) for row in self._db.fetch("deployments", {})]

    def deployment(self: Handle, name: str) -> DeploymentRow | None:
        """Read one deployment; None when there is none of this name."""
        rows = self._db.fetch("deployment", {"name": name})
        return DeploymentRow(**dict(zip(_DEPLOYMENT, rows[0], strict=True))) if rows else None

    def schedules(self: Handle) -> list[ScheduleRow]:
        """List the schedules by id."""
        return [_schedule(row) for row in self._db.fetch("schedules", {})]

    def next_fire(self: Handle) -> int | None:
        """When the next schedule falls due, in epoch ms of the database's clock; None when none will."""
        moment: int | None = self._db.fetch("schedule_next", {})[0][0]
        return moment

    def unfinished(self: Handle, schedule: str) -> list[str]:
        """Runs of a schedule that have not ended."""
        return [row[0] for row in self._db.fetch("schedule_runs", {"of_schedule": schedule})]

    def fires(self: Handle, schedule: str | None = None, limit: int = 50) -> list[FireRow]:
        """List fire times that were dealt with, latest first."""
        rows = self._db.fetch("fires", {"of_schedule": schedule, "limit": limit})
        return [FireRow(**dict(zip(_FIRE, row, strict=True))) for row in rows]


class ScheduleWriter:
    """Writes about deployments and schedules, inside a transaction."""

    def deploy(self: Handle, row: DeploymentRow) -> None:
        """Keep a workflow under its name; one that exists is replaced and its version counted up."""
        fields = msgspec.structs.asdict(row)
        self._db.write("deploy", {name: fields[name] for name in _DEPLOYMENT if name not in ("version", "created_at")})

    def drop_deployment(self: Handle, name: str) -> bool:
        """Forget a deployment with its schedules; its runs stay. False when there is none."""
        return self._db.write("deployment_drop", {"name": name}) == 1

    def put_schedule(self: Handle, row: ScheduleRow) -> None:
        """Add a schedule, or give the one of this id its declaration; the switch stays as it was."""
        fields = msgspec.structs.asdict(row)
        self._db.write("schedule_put", {name: fields[name] for name in _SCHEDULE if name != "created_at"})

    def keep_schedules(self: Handle, deployment: str, ids: Sequence[str]) -> int:
        """Remove a deployment's schedules other than these; returns how many went."""
        return self._db.write("schedules_drop", {"of_deployment": deployment, "keep": json.dumps(list(ids))})

    def due_schedules(self: Handle, limit: int = 64) -> list[ScheduleRow]:
        """Schedules that are due, earliest first, kept from other processes until the transaction ends."""
        return [_schedule(row) for row in self._db.write_fetch("schedules_due", {"limit": limit})]

    def move_schedule(self: Handle, id: str, next_at: int | None) -> None:
        """Say when a schedule fires next; None is never."""
        self._db.write("schedule_move", {"of_schedule": id, "next_at": next_at})

    def switch_schedule(self: Handle, id: str, *, paused: bool, next_at: int | None) -> bool:
        """Pause a schedule, or let it go on with `next_at`; False when there is none of this id."""
        return self._db.write("schedule_switch", {"of_schedule": id, "paused": paused, "next_at": next_at}) == 1

    def record_fire(self: Handle, fire: FireRow) -> bool:
        """Say what became of a fire time; False when that has been said already."""
        fields = msgspec.structs.asdict(fire)
        return self._db.write("fire_insert", {name: fields[name] for name in _FIRE if name != "fired_at"}) == 1


def _schedule(row: tuple[object, ...]) -> ScheduleRow:
    values = dict(zip(_SCHEDULE, row, strict=True))
    return msgspec.convert({**values, "paused": bool(values["paused"])}, ScheduleRow)
