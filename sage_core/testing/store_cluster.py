"""The part of the `JobStore` contract about more than one run: nodes, deployments, schedules, shared files."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path

import msgspec
import pytest

from sage_core.platform.records import DeploymentRow, FireRow, NewRun, ScheduleRow
from sage_core.platform.store import JobStore
from sage_core.testing.store_suite import LONG, Crash, StoreSuite, at_once

#: A silence that everybody has kept already, so that no test has to wait.
SILENT = -LONG
HOUR = 3_600_000
#: A fire time long past.
DUE = 1_000

DEPLOYMENT = DeploymentRow(
    name="flow", version=1, workflow="flow", graph=b"g", graph_hash="h", params=b"p", options=b"o", queue="default"
)
SCHEDULE = ScheduleRow(id="flow/0", deployment="flow", spec='{"schedule":"@daily"}', next_at=DUE)


def announce(store: JobStore, supervisor: str, *, silence_ms: int = LONG, off_ms: int = 0, name: str = "n") -> bool:
    """Speak for a node whose clock is off."""
    node_ms = store.now() + off_ms
    with store.transaction() as tx:
        return tx.announce_node(
            name=name, supervisor=supervisor, host="h", body="{}", node_ms=node_ms, silence_ms=silence_ms
        )


def spawn(store: JobStore, holder: str, *, lease_ms: int = LONG, queue: str = "default") -> bool:
    """Ask for the right to start workers."""
    with store.transaction() as tx:
        return tx.take_spawn(node="n", queue=queue, holder=holder, lease_ms=lease_ms)


def deploy(store: JobStore, *schedules: ScheduleRow) -> None:
    """Keep a workflow with these schedules."""
    with store.transaction() as tx:
        tx.deploy(DEPLOYMENT)
        for schedule in schedules:
            tx.put_schedule(schedule)


def tick(store: JobStore) -> int:
    """Fire what is due as a scheduler does, and return how many runs that made."""
    made = 0
    with store.transaction() as tx:
        for due in tx.due_schedules():
            run_id = f"{due.id}@{due.next_at}"
            assert due.next_at is not None
            if tx.record_fire(FireRow(schedule=due.id, fire_at=due.next_at, outcome="fired", run_id=run_id)):
                tx.insert_run(NewRun(id=run_id, workflow="flow"))
                made += 1
            tx.move_schedule(due.id, None)
    return made


class ClusterContract(StoreSuite):
    """What machines know of one another, and what starts by itself."""

    # ------------------------------------------------------------ nodes

    def test_a_node_has_one_supervisor_at_a_time(self, store: JobStore, other: JobStore) -> None:
        assert announce(store, "one")
        assert not announce(other, "two")
        # The one who speaks for it may do so again.
        assert announce(store, "one")
        with other.transaction() as tx:
            assert not tx.beat_node(name="n", supervisor="two", body="{}", node_ms=0)
            tx.stop_node(name="n", supervisor="two")
        [node] = other.nodes()
        assert (node.name, node.supervisor, node.host, node.body, node.stopped_at) == ("n", "one", "h", "{}", None)

    def test_a_silent_node_is_taken_over_and_its_former_supervisor_told(self, store: JobStore, other: JobStore) -> None:
        announce(store, "one")
        assert announce(other, "two", silence_ms=SILENT)
        with store.transaction() as tx:
            assert not tx.beat_node(name="n", supervisor="one", body="{}", node_ms=0)
            tx.stop_node(name="n", supervisor="one")
        [node] = store.nodes()
        assert (node.supervisor, node.stopped_at) == ("two", None)

    def test_a_node_that_said_goodbye_is_free(self, store: JobStore, other: JobStore) -> None:
        announce(store, "one")
        with store.transaction() as tx:
            tx.stop_node(name="n", supervisor="one")
        assert other.nodes()[0].stopped_at is not None
        with store.transaction() as tx:
            assert not tx.beat_node(name="n", supervisor="one", body="{}", node_ms=0)
        assert announce(other, "two")
        [node] = store.nodes()
        assert (node.supervisor, node.stopped_at) == ("two", None)

    def test_a_beat_says_what_a_node_has_now(self, store: JobStore) -> None:
        announce(store, "one")
        [before] = store.nodes()
        with store.transaction() as tx:
            assert tx.beat_node(name="n", supervisor="one", body='{"cpu":2}', node_ms=tx.now())
        [after] = store.nodes()
        assert (after.body, after.started_at) == ('{"cpu":2}', before.started_at)
        assert after.heartbeat_at >= before.heartbeat_at

    @pytest.mark.parametrize("off", [HOUR, -HOUR])
    def test_a_node_whose_clock_is_off_is_measured_and_not_believed(self, off: int, store: JobStore) -> None:
        announce(store, "one", off_ms=off)
        [node] = store.nodes()
        assert abs(node.clock_ms - off) < 60_000
        # Its silence is told by the database's clock.
        assert abs(node.heartbeat_at - store.now()) < 60_000
        assert not announce(store, "two")

    def test_a_race_for_a_node_has_one_winner(self, store: JobStore, tmp_path: Path) -> None:
        answers: list[bool] = []

        def speak(supervisor: str) -> None:
            with self.make(tmp_path) as mine:
                answers.append(announce(mine, supervisor))

        at_once(*(partial(speak, f"s{n}") for n in range(4)))
        assert sorted(answers) == [False, False, False, True]

    # ------------------------------------------------------------ who starts workers

    def test_one_holder_starts_the_workers_of_a_queue(self, store: JobStore, other: JobStore) -> None:
        assert spawn(store, "one")
        assert spawn(store, "one")
        assert not spawn(other, "two")
        assert spawn(other, "two", queue="gpu")
        with store.transaction() as tx:
            tx.drop_spawn("one")
        assert spawn(other, "two")
        assert not spawn(store, "one", queue="gpu")

    def test_the_right_to_start_workers_runs_out(self, store: JobStore, other: JobStore) -> None:
        assert spawn(store, "one", lease_ms=0)
        assert spawn(other, "two")
        assert not spawn(store, "one")

    # ------------------------------------------------------------ deployments and schedules

    def test_a_deployment_counts_its_versions(self, store: JobStore) -> None:
        deploy(store)
        with store.transaction() as tx:
            tx.deploy(msgspec.structs.replace(DEPLOYMENT, graph=b"g2", graph_hash="h2"))
        [kept] = store.deployments()
        assert kept == msgspec.structs.replace(
            DEPLOYMENT, version=2, graph=b"g2", graph_hash="h2", created_at=kept.created_at
        )
        with store.transaction() as tx:
            assert tx.drop_deployment("flow")
            assert not tx.drop_deployment("flow")
        assert store.deployments() == []

    def test_deploying_again_keeps_the_switch_and_the_next_time(self, store: JobStore) -> None:
        deploy(store, SCHEDULE)
        with store.transaction() as tx:
            assert tx.switch_schedule(SCHEDULE.id, paused=True, next_at=DUE + 1)
            assert not tx.switch_schedule("unknown", paused=True, next_at=None)
        deploy(store, SCHEDULE)
        assert [(s.paused, s.next_at, s.spec) for s in store.schedules()] == [(True, DUE + 1, SCHEDULE.spec)]
        deploy(store, msgspec.structs.replace(SCHEDULE, spec="{}", next_at=DUE + 2))
        assert [(s.paused, s.next_at, s.spec) for s in store.schedules()] == [(True, DUE + 2, "{}")]

    def test_a_deployment_takes_its_schedules_and_their_fires_with_it(self, store: JobStore) -> None:
        deploy(store, SCHEDULE, msgspec.structs.replace(SCHEDULE, id="flow/1"))
        assert tick(store) == 2
        with store.transaction() as tx:
            assert tx.keep_schedules("flow", ["flow/1", "flow/2"]) == 1
            assert tx.keep_schedules("other", []) == 0
        assert [s.id for s in store.schedules()] == ["flow/1"]
        assert [fire.schedule for fire in store.fires()] == ["flow/1"]
        with store.transaction() as tx:
            tx.drop_deployment("flow")
        assert (store.schedules(), store.fires()) == ([], [])
        # What they started stays.
        assert len(store.runs()) == 2

    def test_what_is_due_is_what_is_neither_paused_nor_later(self, store: JobStore) -> None:
        later = store.now() + HOUR
        deploy(
            store,
            msgspec.structs.replace(SCHEDULE, id="b", next_at=DUE + 1),
            msgspec.structs.replace(SCHEDULE, id="a", next_at=DUE),
            msgspec.structs.replace(SCHEDULE, id="later", next_at=later),
            msgspec.structs.replace(SCHEDULE, id="never", next_at=None),
            msgspec.structs.replace(SCHEDULE, id="paused", next_at=0, paused=True),
        )
        assert store.next_fire() == DUE
        with store.transaction() as tx:
            assert [s.id for s in tx.due_schedules()] == ["a", "b"]
            assert [s.id for s in tx.due_schedules(1)] == ["a"]
        assert tick(store) == 2
        assert store.next_fire() == later
        assert tick(store) == 0

    def test_a_fire_time_fires_once(self, store: JobStore, other: JobStore) -> None:
        deploy(store, SCHEDULE)
        fire = FireRow(schedule=SCHEDULE.id, fire_at=DUE, outcome="fired", run_id="one")
        with store.transaction() as tx:
            assert tx.record_fire(fire)
        with other.transaction() as tx:
            assert not tx.record_fire(msgspec.structs.replace(fire, run_id="two"))
            assert tx.record_fire(msgspec.structs.replace(fire, fire_at=DUE + 1, outcome="skipped", run_id=None))
        assert [(f.fire_at, f.outcome, f.run_id) for f in store.fires(SCHEDULE.id)] == [
            (DUE + 1, "skipped", None),
            (DUE, "fired", "one"),
        ]
        assert store.fires("unknown") == []
        assert [f.fire_at for f in store.fires(limit=1)] == [DUE + 1]

    def test_a_fire_that_is_rolled_back_is_due_again(self, store: JobStore, other: JobStore) -> None:
        deploy(store, SCHEDULE)
        with contextlib.suppress(Crash), store.transaction() as tx:
            assert tx.record_fire(FireRow(schedule=SCHEDULE.id, fire_at=DUE, outcome="fired", run_id="one"))
            raise Crash
        assert other.fires() == []
        assert tick(other) == 1

    def test_schedulers_at_once_make_one_run_of_a_fire_time(self, store: JobStore, tmp_path: Path) -> None:
        deploy(store, *(msgspec.structs.replace(SCHEDULE, id=f"s{n}") for n in range(8)))
        made: list[int] = []

        def look() -> None:
            with self.make(tmp_path) as mine:
                made.append(tick(mine))
                made.append(tick(mine))

        at_once(*[look] * 4)
        assert sum(made) == 8
        assert len(store.runs()) == len(store.fires()) == 8

    # ------------------------------------------------------------ shared files

    def test_a_shared_file_comes_back_whole(self, store: JobStore, other: JobStore) -> None:
        pieces = [bytes([n]) * 3 for n in range(12)]
        with store.transaction() as tx:
            tx.put_blob("a1", pieces[:5])
            tx.put_blob("a1", pieces[5:], start=5)
            tx.put_blob("b2", [b""])
        assert [other.blob_piece("a1", n) for n in range(13)] == [*pieces, None]
        assert [other.blob_piece("b2", n) for n in range(2)] == [b"", None]
        assert [other.has_blob(digest) for digest in ("a1", "b2", "c3")] == [True, True, False]
        assert other.blobs() == {"a1", "b2"}
        with other.transaction() as tx:
            # The same digest is the same file: the second is not written.
            tx.put_blob("a1", [b"other"])
        assert store.blob_piece("a1", 0) == pieces[0]
        with store.transaction() as tx:
            assert tx.drop_blobs(["a1", "c3"]) == 12
            assert tx.drop_blobs([]) == 0
        assert other.blobs() == {"b2"}
