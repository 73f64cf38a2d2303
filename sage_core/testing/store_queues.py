"""The part of the `JobStore` contract about who may take a job: paused queues, slots, placement, needs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from sage_core.common.records import Job
from sage_core.platform.records import NewJob, QueueRow
from sage_core.platform.store import JobStore
from sage_core.testing.store_suite import LONG, OVER, Crash, StoreSuite, at_once, finish, put, row, submit

GPU, BIG = '{"gpu":1}', '{"memory":64}'


def limited(count: int, key: str = "k") -> list[NewJob]:
    """Jobs of one stage that share a key."""
    return [NewJob(run_id="run", stage=key, part=part, limit_key=key) for part in range(count)]


def slots(store: JobStore, count: int, key: str = "k") -> None:
    """Say how many jobs of a key may run."""
    with store.transaction() as tx:
        tx.make_slots(key, count)


#: Ways in which an attempt ends, each of which frees its slot.
ENDINGS: dict[str, Callable[[JobStore, Job], object]] = {
    "finished": finish,
    "failed": lambda store, job: store.fail(job.id, job.fence, "boom", retry_in_ms=None),
    "failed for now": lambda store, job: store.fail(job.id, job.fence, "boom", retry_in_ms=LONG),
    "snoozed": lambda store, job: store.snooze(job.id, job.fence, LONG),
    "cancelled": lambda store, job: store.cancel_run(job.run_id),
    "lost": lambda store, job: store.release_worker("a", "exit code -9"),
}


class QueueContract(StoreSuite):
    """A job is claimed only from a queue that runs, with a free slot, by a node that it suits."""

    # ------------------------------------------------------------ queues

    def test_a_paused_queue_hands_out_nothing_and_lets_what_runs_finish(self, store: JobStore, other: JobStore) -> None:
        ids = submit(store, 3)
        [gpu] = put(store, NewJob(run_id="run", stage="gpu", queue="gpu"))
        [job] = store.claim("w", lease_ms=LONG)
        with other.transaction() as tx:
            tx.switch_queue("default", paused=True)
        assert store.claim("w", lease_ms=LONG, limit=9) == []
        assert store.claim("w", lease_ms=LONG, run_id="run", limit=9) == []
        assert [job.id for job in store.claim("w", lease_ms=LONG, queue="gpu", limit=9)] == [gpu]
        assert store.renew([(job.id, job.fence)], LONG) == {ids[0]}
        finish(store, job)
        with other.transaction() as tx:
            tx.switch_queue("default", paused=False)
        assert [job.id for job in store.claim("w", lease_ms=LONG, limit=9)] == ids[1:]

    def test_a_pause_outlives_the_handle_that_made_it_and_comes_before_the_jobs(
        self, store: JobStore, other: JobStore
    ) -> None:
        with store.transaction() as tx:
            tx.switch_queue("default", paused=True)
        store.close()
        submit(other)
        assert other.claim("w", lease_ms=LONG) == []
        assert other.queues() == [
            QueueRow(name="default", paused=True, held=1, oldest_run_at=other.jobs("run")[0].run_at)
        ]

    def test_queues_are_counted(self, store: JobStore) -> None:
        assert store.queues() == []
        first, second, _ = submit(store, 3)
        gpu = [NewJob(run_id="run", stage="gpu", part=n, queue="gpu", delay_ms=LONG * (n == 2)) for n in range(3)]
        put(store, *gpu)
        with store.transaction() as tx:
            tx.insert_edges([(first, second)])
            tx.switch_queue("idle", paused=False)
        store.claim("w", lease_ms=LONG)

        def counts() -> dict[str, tuple[int, ...]]:
            return {each.name: (each.ready, each.delayed, each.held, *rest(each)) for each in store.queues()}

        def rest(queue: QueueRow) -> tuple[int, int]:
            return queue.running, queue.blocked

        assert counts() == {"default": (1, 0, 0, 1, 1), "gpu": (2, 1, 0, 0, 0), "idle": (0, 0, 0, 0, 0)}
        with store.transaction() as tx:
            tx.switch_queue("gpu", paused=True)
            tx.switch_queue("default", paused=True)
        # Whatever would be ready or due later waits for the switch; what runs goes on.
        assert counts() == {"default": (0, 0, 1, 1, 1), "gpu": (0, 0, 3, 0, 0), "idle": (0, 0, 0, 0, 0)}

    # ------------------------------------------------------------ slots

    def test_jobs_of_a_key_with_one_slot_never_run_at_once(self, store: JobStore, other: JobStore) -> None:
        slots(store, 1)
        ids = put(store, *limited(3), NewJob(run_id="run", stage="free"))
        first = store.claim("a", lease_ms=LONG, limit=9)
        assert [job.id for job in first] == [ids[0], ids[3]]
        assert other.claim("b", lease_ms=LONG, limit=9) == []
        finish(store, first[0])
        assert [job.id for job in other.claim("b", lease_ms=LONG, limit=9)] == [ids[1]]
        assert store.claim("a", lease_ms=LONG, limit=9) == []
        # Those that found no slot were not tried.
        assert row(store, ids[2]).attempt == 0
        assert [a.job_id for a in store.attempts("run")] == [ids[0]]

    def test_a_claim_is_committed_with_its_slot_or_not_at_all(self, store: JobStore, other: JobStore) -> None:
        slots(store, 1)
        [id] = put(store, *limited(1))
        write = store._db.write

        def dies(name: str, parameters: Mapping[str, object]) -> int:
            if name == "slot_take":
                raise Crash
            return write(name, parameters)

        store._db.write = dies  # type: ignore[method-assign]
        with pytest.raises(Crash):
            store.claim("a", lease_ms=LONG)
        assert (row(other, id).state, row(other, id).attempt) == ("ready", 0)
        assert [job.id for job in other.claim("b", lease_ms=LONG)] == [id]

    def test_keys_have_slots_of_their_own(self, store: JobStore) -> None:
        slots(store, 1, "k")
        slots(store, 2, "l")
        ids = put(store, *limited(2, "k"), *limited(3, "l"))
        assert [job.id for job in store.claim("a", lease_ms=LONG, limit=9)] == [ids[0], ids[2], ids[3]]

    def test_a_limited_job_waits_until_its_key_has_slots(self, store: JobStore) -> None:
        [id] = put(store, *limited(1))
        assert store.claim("a", lease_ms=LONG) == []
        slots(store, 1)
        assert [job.id for job in store.claim("a", lease_ms=LONG)] == [id]

    @pytest.mark.parametrize("verb", ENDINGS)
    def test_an_attempt_that_ends_frees_its_slot(self, verb: str, store: JobStore, other: JobStore) -> None:
        slots(store, 1)
        put(store, *limited(1))
        [id] = put(store, NewJob(run_id="later", stage="s", rank=1, limit_key="k"))
        [job] = store.claim("a", lease_ms=LONG)
        assert other.claim("b", lease_ms=LONG) == []
        ENDINGS[verb](store, job)
        if verb == "lost":
            # The lost job comes first again, and takes the slot with a higher fence.
            [again] = other.claim("b", lease_ms=LONG, limit=9)
            assert (again.id, again.fence) == (job.id, 2)
            finish(other, again)
        assert [job.id for job in other.claim("b", lease_ms=LONG, limit=9)] == [id]

    def test_a_dead_holders_slot_is_free_when_its_job_is_taken_back(self, store: JobStore, other: JobStore) -> None:
        slots(store, 1)
        [_, last] = put(store, *limited(1), NewJob(run_id="run", stage="last", rank=1, limit_key="k"))
        [dead] = store.claim("a", lease_ms=OVER)
        [job] = other.claim("b", lease_ms=LONG, limit=9)
        assert (job.id, job.fence) == (dead.id, 2)
        assert store.claim("a", lease_ms=LONG, limit=9) == []
        finish(other, job)
        assert [job.id for job in store.claim("a", lease_ms=LONG, limit=9)] == [last]

    def test_a_slot_of_an_earlier_attempt_is_free(self, store: JobStore) -> None:
        slots(store, 2)
        [*_, third] = put(store, *limited(2), NewJob(run_id="run", stage="last", rank=1, limit_key="k"))
        [first] = store.claim("a", lease_ms=LONG)
        [second] = store.claim("dead", lease_ms=LONG)
        finish(store, first)
        store.release_worker("dead", "gone")
        # The second job is back in the first slot; what it had before, it has no more.
        assert [(job.id, job.fence) for job in store.claim("b", lease_ms=LONG)] == [(second.id, 2)]
        assert [job.id for job in store.claim("b", lease_ms=LONG)] == [third]

    def test_a_count_of_slots_is_lowered_and_raised(self, store: JobStore) -> None:
        slots(store, 2)
        put(store, *limited(9))
        jobs = store.claim("a", lease_ms=LONG, limit=9)
        assert len(jobs) == 2
        slots(store, 1)
        # What runs is left alone, and nothing follows it until there is room.
        assert len(store.renew([(job.id, job.fence) for job in jobs], LONG)) == 2
        assert store.claim("a", lease_ms=LONG, limit=9) == []
        finish(store, jobs[0])
        assert store.claim("a", lease_ms=LONG, limit=9) == []
        # Raised and lowered once more: whoever is over the count stays so.
        slots(store, 2)
        [again] = store.claim("a", lease_ms=LONG, limit=9)
        slots(store, 1)
        finish(store, again)
        assert store.claim("a", lease_ms=LONG, limit=9) == []
        finish(store, jobs[1])
        assert len(store.claim("a", lease_ms=LONG, limit=9)) == 1
        slots(store, 4)
        assert len(store.claim("a", lease_ms=LONG, limit=9)) == 3
        slots(store, 0)
        store.release_worker("a", "gone")
        assert store.claim("a", lease_ms=LONG, limit=9) == []

    def test_claims_from_many_threads_keep_to_the_slots(self, store: JobStore, tmp_path: Path) -> None:
        slots(store, 2)
        ids = put(store, *limited(24))
        lock = threading.Lock()
        running: set[int] = set()
        done: list[int] = []
        most: list[int] = []

        def work(name: str) -> None:
            with self.make(tmp_path) as mine:
                while len(done) < len(ids):
                    for job in mine.claim(name, lease_ms=LONG, limit=2):
                        with lock:
                            running.add(job.id)
                            most.append(len(running))
                        with lock:
                            running.remove(job.id)
                        finish(mine, job)
                        done.append(job.id)

        at_once(*(partial(work, f"w{n}") for n in range(4)))
        assert sorted(done) == ids
        assert max(most) <= 2

    # ------------------------------------------------------------ placement

    def test_a_placed_job_waits_for_its_node_while_its_patience_lasts(self, store: JobStore) -> None:
        ids = put(
            store,
            NewJob(run_id="run", stage="patient", node="a", patience_ms=LONG),
            NewJob(run_id="run", stage="hasty", node="a", patience_ms=0, rank=1),
        )
        assert [job.id for job in store.claim("w", lease_ms=LONG, node="b", limit=9)] == [ids[1]]
        assert store.claim("w", lease_ms=LONG, limit=9) == []
        assert [job.id for job in store.claim("w", lease_ms=LONG, node="a", limit=9)] == [ids[0]]
        assert [row(store, id).node for id in ids] == ["a", "b"]

    def test_a_delay_comes_before_the_patience(self, store: JobStore) -> None:
        [id] = put(store, NewJob(run_id="run", stage="s", node="a", delay_ms=LONG, patience_ms=LONG))
        job = row(store, id)
        assert job.node_until is not None
        assert job.node_until - job.run_at == LONG

    def test_a_node_that_dies_loses_its_placement(self, store: JobStore) -> None:
        [id] = put(store, NewJob(run_id="run", stage="s", node="a", patience_ms=LONG))
        store.claim("dead", lease_ms=LONG, node="a")
        store.release_worker("dead", "gone")
        assert (row(store, id).node, row(store, id).node_until) == (None, None)
        assert [job.id for job in store.claim("w", lease_ms=LONG, node="b")] == [id]

    def test_a_job_that_found_no_slot_is_bound_to_no_node(self, store: JobStore) -> None:
        slots(store, 2)
        ids = put(store, *limited(2))
        for job in store.claim("w", lease_ms=LONG, limit=2):
            store.fail(job.id, job.fence, "again", retry_in_ms=0)
        slots(store, 1)
        [job] = store.claim("w", lease_ms=LONG, node="a", limit=2)
        finish(store, job)
        [left] = {*ids} - {job.id}
        assert [job.id for job in store.claim("w", lease_ms=LONG, node="b")] == [left]

    # ------------------------------------------------------------ needs

    def test_a_job_with_needs_is_left_to_a_node_that_meets_them(self, store: JobStore) -> None:
        gpu, big, plain = put(
            store,
            NewJob(run_id="run", stage="gpu", needs=GPU),
            NewJob(run_id="run", stage="big", needs=BIG),
            NewJob(run_id="run", stage="plain", rank=1),
        )
        asked: list[tuple[list[str], dict[str, int]]] = []

        def fits(waiting: Sequence[str], running: Mapping[str, int]) -> list[str]:
            asked.append((sorted(waiting), dict(running)))
            return [needs for needs in waiting if needs in able]

        able: set[str] = set()
        assert [job.id for job in store.claim("w", lease_ms=LONG, limit=9)] == [plain]
        assert store.claim("w", lease_ms=LONG, node="n", fits=fits, limit=9) == []
        able = {GPU, BIG}
        # One at a time, because each takes from what the node has left.
        assert [job.id for job in store.claim("w", lease_ms=LONG, node="n", fits=fits, limit=9)] == [gpu]
        assert store.claim("w", lease_ms=LONG, limit=9) == []
        assert [job.id for job in store.claim("w", lease_ms=LONG, node="n", fits=fits, limit=9)] == [big]
        assert asked == [([GPU, BIG], {}), ([GPU, BIG], {}), ([BIG], {GPU: 1})]

    def test_what_runs_elsewhere_takes_nothing_from_this_node(self, store: JobStore) -> None:
        put(store, *(NewJob(run_id="run", stage="gpu", part=part, needs=GPU) for part in range(2)))
        seen: list[dict[str, int]] = []

        def fits(waiting: Sequence[str], running: Mapping[str, int]) -> list[str]:
            seen.append(dict(running))
            return list(waiting)

        for node in ("a", "b"):
            assert len(store.claim("w", lease_ms=LONG, node=node, fits=fits)) == 1
        assert seen == [{}, {}]

    def test_fits_is_asked_only_while_needs_wait(self, store: JobStore) -> None:
        submit(store)

        def fits(waiting: Sequence[str], running: Mapping[str, int]) -> list[str]:
            raise AssertionError("nothing with needs waits")

        assert len(store.claim("w", lease_ms=LONG, node="n", fits=fits)) == 1
