"""Tests of sage_core.kernel.runtime.autoscale: one supervisor for many enqueues, and none where one serves."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sage_core.common.config import Config, QueueConfig
from sage_core.kernel.runtime.autoscale import ensure_workers, wake
from sage_core.kernel.runtime.submit import Order
from sage_core.kernel.scheduler.node import node_name
from sage_core.platform.processes import is_alive, this_process
from sage_core.platform.records import WorkerRow
from sage_core.platform.store import JobStore
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import drive_operators
from tests.unit.kernel.runtime.queued import enqueue, numbers


@pytest.fixture
def flows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flows:
    # What is started finds the store by these, as the command does.
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    monkeypatch.setenv("SAGE_PLUGINS", "")
    config = Config(queues={name: QueueConfig(idle=0.4) for name in ("empty", "served", "due", "late")})
    return Flows(tmp_path, {"driven": drive_operators}, config=config)


@pytest.fixture
def store(flows: Flows) -> Iterator[JobStore]:
    with flows.open_store() as store:
        yield store
        give_up = time.monotonic() + 20
        while any(worker.pid != os.getpid() and is_alive(worker) for worker in store.live_workers()):
            assert time.monotonic() < give_up
            threading.Event().wait(0.02)


def supervisor_at_work(store: JobStore) -> WorkerRow:
    give_up = time.monotonic() + 20
    while not (found := [worker for worker in store.live_workers() if worker.kind == "supervisor"]):
        assert time.monotonic() < give_up
        threading.Event().wait(0.02)
    return found[0]


def test_many_enqueues_start_one_supervisor_which_leaves_when_idle(flows: Flows, store: JobStore) -> None:
    assert [ensure_workers(flows.project, "empty") for _ in range(3)] == [True, False, False]
    worker = supervisor_at_work(store)
    assert (worker.queue, worker.node) == ("empty", node_name(flows.project.config))
    assert os.getpgid(worker.pid) != os.getpgid(0), "it outlives the terminal it was started from"


def test_a_supervisor_that_was_killed_is_replaced_at_once(flows: Flows, store: JobStore) -> None:
    assert ensure_workers(flows.project, "served")
    first = supervisor_at_work(store)
    assert not ensure_workers(flows.project, "served")
    os.kill(first.pid, signal.SIGKILL)
    while is_alive(first):
        threading.Event().wait(0.01)

    assert ensure_workers(flows.project, "served")
    assert supervisor_at_work(store).id != first.id


def test_a_supervisor_on_another_machine_serves_another_node(flows: Flows, store: JobStore) -> None:
    other = msgspec.structs.replace(this_process("supervisor"), host="elsewhere", node="elsewhere", queue="empty")
    store.register_worker(other)
    with store.transaction() as tx:
        assert tx.take_spawn(node="elsewhere", queue="empty", holder=other.id, lease_ms=60_000)
    assert ensure_workers(flows.project, "empty")


def test_queues_with_due_work_are_woken_and_no_others(flows: Flows, store: JobStore) -> None:
    enqueue(flows, numbers(), Order(queue="due"))
    enqueue(flows, numbers(n=6), Order(queue="late", delay_ms=600_000))
    assert wake(flows.project) == ["due"]
    assert wake(flows.project) == []
