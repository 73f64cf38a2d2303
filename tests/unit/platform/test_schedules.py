"""The face of deployments and schedules; sage_core.testing.store_cluster has what both databases keep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_core.common.errors import StoreError
from sage_core.platform.records import FireRow, ScheduleRow
from sage_core.platform.store import JobStore
from sage_core.testing.store_cluster import DEPLOYMENT, SCHEDULE, deploy, tick


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    with JobStore.open(f"sqlite:///{tmp_path}/s.db") as store:
        yield store


def test_a_schedule_tells_its_switch_as_a_truth_value(store: JobStore) -> None:
    deploy(store, SCHEDULE)
    [schedule] = store.schedules()
    assert schedule.paused is False
    assert isinstance(schedule, ScheduleRow)
    assert (schedule.id, schedule.deployment, schedule.next_at) == (SCHEDULE.id, "flow", SCHEDULE.next_at)
    with store.transaction() as tx:
        tx.switch_schedule(SCHEDULE.id, paused=True, next_at=None)
    assert store.schedules()[0].paused is True
    assert store.next_fire() is None


def test_a_store_without_deployments_has_nothing_due(store: JobStore) -> None:
    assert (store.deployments(), store.schedules(), store.fires(), store.next_fire()) == ([], [], [], None)
    assert tick(store) == 0


def test_a_schedule_of_nothing_is_refused(store: JobStore) -> None:
    with pytest.raises(StoreError, match="refused by a constraint"), store.transaction() as tx:
        tx.put_schedule(SCHEDULE)
    assert store.schedules() == []


def test_a_fire_of_no_schedule_is_refused(store: JobStore) -> None:
    with pytest.raises(StoreError, match="refused by a constraint"), store.transaction() as tx:
        tx.record_fire(FireRow(schedule="none", fire_at=1, outcome="fired", run_id=None))
    assert store.fires() == []


def test_what_is_due_is_read_inside_a_transaction_only(store: JobStore) -> None:
    with store.transaction() as tx:
        tx.deploy(DEPLOYMENT)
    with pytest.raises(StoreError, match="a write outside a transaction"):
        tx.due_schedules()
    assert [deployment.name for deployment in store.deployments()] == ["flow"]
