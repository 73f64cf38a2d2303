"""Tests of sage_core.kernel.runtime.supervisor: real processes over a real store."""

from __future__ import annotations

import os
import signal
import threading
import time
import types
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from sage_core.common.config import Config, QueueConfig, WorkerConfig
from sage_core.common.errors import UsageError
from sage_core.common.records import Node
from sage_core.kernel.runtime.submit import Order
from sage_core.kernel.runtime.supervisor import Farewell, Supervisor
from sage_core.kernel.runtime.team import DEATHS
from sage_core.platform.processes import this_process
from sage_core.platform.store import JobStore
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import drive_operators
from tests.unit.kernel.runtime.queued import enqueue, numbers

HERE = Node(name="here", cpu=2.0, memory=2**30)


@pytest.fixture
def flows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flows:
    monkeypatch.chdir(tmp_path)
    return Flows(tmp_path, {"driven": drive_operators}, config=Config(workers=WorkerConfig(count=1)))


@pytest.fixture
def store(flows: Flows) -> Iterator[JobStore]:
    with flows.open_store() as store:
        yield store


def supervisor_of(
    flows: Flows,
    queues: Sequence[str] = ("default",),
    *,
    node: Node = HERE,
    until_idle: float | None = 0.1,
    max_jobs: int | None = None,
    grace: float = 5.0,
) -> Supervisor:
    return Supervisor(flows.project, flows.host, node, queues, until_idle=until_idle, max_jobs=max_jobs, grace=grace)


class Serving:
    """A supervisor at work in a thread."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.farewell: Farewell | None = None
        self._supervisor = supervisor
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.farewell = self._supervisor.run()

    def left(self) -> Farewell:
        self._thread.join(30)
        assert self.farewell is not None
        return self.farewell


def wait_for(store: JobStore, run_id: str, state: str, stage: str = "act") -> None:
    give_up = time.monotonic() + 20
    while not any((job.stage, job.state) == (stage, state) for job in store.jobs(run_id)):
        assert time.monotonic() < give_up, store.jobs(run_id)
        threading.Event().wait(0.01)


def test_it_serves_its_queues_and_leaves_nothing_behind_when_they_are_idle(flows: Flows, store: JobStore) -> None:
    runs = [enqueue(flows, numbers(n=n), Order(queue=queue)) for n, queue in ((4, "a"), (6, "b"))]

    farewell = supervisor_of(flows, ["a", "b"]).run()

    assert [store.run(run).status for run in runs] == ["succeeded", "succeeded"]
    assert (farewell.node, farewell.reason) == ("here", "idle")
    assert {name: (queue.started, queue.died) for name, queue in farewell.queues.items()} == {"a": (1, 0), "b": (1, 0)}
    assert store.live_workers() == []
    (node,) = store.nodes()
    assert node.stopped_at is not None
    assert msgspec.json.decode(node.body, type=Node) == HERE


def test_it_waits_for_what_is_due_soon_and_not_for_what_is_due_late(flows: Flows, store: JobStore) -> None:
    soon = enqueue(flows, numbers(), Order(delay_ms=300))
    late = enqueue(flows, numbers(n=6), Order(delay_ms=600_000))
    supervisor_of(flows, until_idle=0.5).run()
    assert [store.run(run).status for run in (soon, late)] == ["succeeded", "queued"]


def test_a_paused_queue_needs_nobody(flows: Flows, store: JobStore) -> None:
    run = enqueue(flows, numbers())
    with store.transaction() as tx:
        tx.switch_queue("default", paused=True)
    assert supervisor_of(flows).run().queues["default"].started == 0
    assert store.run(run).status == "queued"


def test_a_killed_worker_is_replaced_and_its_job_run_again(flows: Flows, store: JobStore) -> None:
    run = enqueue(flows, numbers("d.die", partition=1, flag=str(flows.home / "flag")))
    farewell = supervisor_of(flows).run()
    assert store.run(run).status == "succeeded"
    assert (farewell.queues["default"].died, farewell.queues["default"].error) == (1, "")
    (lost,) = [attempt for attempt in store.attempts(run) if attempt.outcome == "lost"]
    assert "was killed by SIGKILL" in lost.error


def test_a_queue_whose_workers_die_before_any_job_is_given_up_with_the_reason(tmp_path: Path) -> None:
    ghost = types.ModuleType("no_such_module")
    vars(ghost)["sage_operators"] = drive_operators.sage_operators
    flows = Flows(tmp_path, {"ghost": ghost}, config=Config(workers=WorkerConfig(count=2)))
    run = enqueue(flows, numbers())

    farewell = supervisor_of(flows, until_idle=None).run()

    report = farewell.queues["default"]
    assert farewell.reason == "gave_up"
    assert report.died >= DEATHS
    assert report.error.startswith(f"{DEATHS} workers died without running a job; see {flows.project.paths.logs}/")
    assert "no_such_module" in report.error
    with flows.open_store() as store:
        (job,) = store.jobs(run)
    assert (job.state, job.attempt) == ("ready", 0), "a broken install costs no job its attempts"


def test_as_many_workers_stay_as_the_queue_keeps_and_more_leave(tmp_path: Path) -> None:
    config = Config(workers=WorkerConfig(count=4), queues={"q": QueueConfig(min=1, max=3, buffer=2, idle=0.05)})
    flows = Flows(tmp_path, {"driven": drive_operators}, config=config)
    run = enqueue(flows, numbers("d.hang", n=4, partition=1, flag=str(flows.home / "flag")), Order(queue="q"))
    with flows.open_store() as store:
        serving = Serving(supervisor_of(flows, ["q"], until_idle=1.5))
        wait_for(store, run, "done")
        store.cancel_run(run)
        farewell = serving.left()
    assert 2 <= farewell.queues["q"].started <= 4
    assert farewell.queues["q"].died == 0


def test_it_leaves_after_the_jobs_it_was_asked_for(flows: Flows, store: JobStore) -> None:
    run = enqueue(flows, numbers("d.pid", n=6, partition=1))
    farewell = supervisor_of(flows, until_idle=None, max_jobs=3).run()
    assert farewell.reason == "max_jobs"
    assert store.counts(run)["done"] == 3
    assert len(store.attempts(run)) == 3


def test_a_queue_that_is_served_on_this_node_is_refused(flows: Flows, store: JobStore) -> None:
    me = msgspec.structs.replace(this_process("supervisor"), node="here", queue="other,default")
    store.register_worker(me)
    with store.transaction() as tx:
        assert tx.take_spawn(node="here", queue="default", holder=me.id, lease_ms=60_000)
    with pytest.raises(UsageError) as refused:
        supervisor_of(flows).run()
    assert str(refused.value) == (
        f"Node 'here' serves queue 'default' already (process {os.getpid()} on {os.uname().nodename}).\n"
        "  help: wait for it, or give this one another name: --node NAME"
    )
    assert [worker.id for worker in store.live_workers()] == [me.id]


def test_a_name_that_another_machine_has_is_refused_until_it_is_silent(flows: Flows, store: JobStore) -> None:
    def announce(silence_ms: int) -> bool:
        with store.transaction() as tx:
            return tx.announce_node(
                name="here", supervisor="other", host="elsewhere", body="{}", node_ms=0, silence_ms=silence_ms
            )

    assert announce(90_000)
    with pytest.raises(UsageError) as refused:
        supervisor_of(flows).run()
    assert str(refused.value).startswith("Node 'here' is announced by elsewhere already.")
    assert "--node NAME" in str(refused.value)

    with store.transaction() as tx:
        tx.stop_node(name="here", supervisor="other")
    assert supervisor_of(flows).run().reason == "idle"


def test_two_of_one_machine_share_its_name_for_different_queues(flows: Flows, store: JobStore) -> None:
    # Somebody is at work in its queue, so the first does not leave.
    held = enqueue(flows, numbers(n=2), Order(queue="a"))
    assert store.claim("elsewhere", queue="a", lease_ms=600_000)
    first = Serving(supervisor_of(flows, ["a"]))
    give_up = time.monotonic() + 20
    while not store.nodes():
        assert time.monotonic() < give_up
        threading.Event().wait(0.01)
    run = enqueue(flows, numbers(), Order(queue="b"))
    assert supervisor_of(flows, ["b"]).run().reason == "idle"
    assert store.run(run).status == "succeeded"
    assert store.nodes()[0].stopped_at is None, "the first speaks for it"
    store.cancel_run(held)
    assert first.left().reason == "idle"
    assert store.nodes()[0].stopped_at is not None


def test_the_rights_of_a_dead_supervisor_are_taken_over(flows: Flows, store: JobStore) -> None:
    child = os.fork()
    if child == 0:
        signal.pause()
    dead = msgspec.structs.replace(this_process("supervisor"), pid=child, ticks=0)
    store.register_worker(dead)
    with store.transaction() as tx:
        assert tx.take_spawn(node="here", queue="default", holder=dead.id, lease_ms=600_000)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    run = enqueue(flows, numbers())
    assert supervisor_of(flows).run().reason == "idle"
    assert store.run(run).status == "succeeded"


def test_heartbeats_keep_the_jobs_of_busy_workers(tmp_path: Path) -> None:
    config = Config(workers=WorkerConfig(count=1, lease=0.6))
    flows = Flows(tmp_path, {"driven": drive_operators}, config=config)
    (tmp_path / "sage.toml").write_text("[workers]\nlease = 0.6\n")
    run = enqueue(flows, numbers("d.nap", n=1, seconds=2.0))
    supervisor_of(flows).run()
    with flows.open_store() as store:
        assert store.run(run).status == "succeeded"
        assert [attempt.outcome for attempt in store.attempts(run)] == ["done", "done"]


def leased(folder: Path, lease: float) -> Flows:
    """Workers read the lease where their supervisor does, and here that is not a file."""
    (folder / "sage.toml").write_text(f"[workers]\nlease = {lease}\n")
    return Flows(folder, {"driven": drive_operators}, config=Config(workers=WorkerConfig(count=1, lease=lease)))


def test_a_worker_that_computes_in_c_for_longer_than_its_lease_keeps_its_job(tmp_path: Path) -> None:
    flows = leased(tmp_path, 1.2)
    run = enqueue(flows, numbers("d.churn", n=1))
    farewell = supervisor_of(flows).run()
    with flows.open_store() as store:
        assert store.run(run).status == "succeeded"
        assert [attempt.outcome for attempt in store.attempts(run)] == ["done", "done"]
    assert farewell.queues["default"].died == 0


def test_a_worker_that_gives_no_sign_of_life_loses_its_job_to_another(tmp_path: Path) -> None:
    flows = leased(tmp_path, 0.6)
    run = enqueue(flows, numbers("d.freeze", n=1, flag=str(tmp_path / "flag")))
    farewell = supervisor_of(flows, grace=0.1).run()
    with flows.open_store() as store:
        assert store.run(run).status == "succeeded"
        assert sorted(attempt.outcome for attempt in store.attempts(run)) == ["done", "done", "expired"]
        assert store.live_workers() == []
    assert farewell.queues["default"].started == 2


def test_what_another_machine_lost_is_taken_back_where_no_worker_is(tmp_path: Path) -> None:
    flows = leased(tmp_path, 0.6)
    run = enqueue(flows, numbers(n=1))
    with flows.open_store() as store:
        assert store.claim("of a machine that dies", lease_ms=300)
        farewell = supervisor_of(flows).run()
        assert store.run(run).status == "succeeded"
    assert farewell.reason == "idle"
