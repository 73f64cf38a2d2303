"""A database as a scenario finds it, what actors may do there, and what must hold in whatever order they did it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from sage_core.common.errors import StaleAttempt, StoreUnavailable, UsageError
from sage_core.common.records import Job
from sage_core.platform.records import FireRow, NewJob, NewRun
from sage_core.platform.store import JobStore
from sage_core.testing.store_suite import LONG
from tests.interleavings.stepped import Script

#: Whoever held jobs before the actors began.
BEFORE = "before"
TABLES = ("computing", "fire", "schedule", "deployment", "node", "spawn", "slot", "result", "run")


class World:
    """The database as a scenario finds it, and a log of what the actors were told."""

    def __init__(self, store: JobStore) -> None:
        self.store = store
        self.jobs: list[int] = []
        #: Jobs the actors did not claim themselves.
        self.held: list[Job] = []
        self.claimed: Counter[tuple[int, int]] = Counter()
        self.finished: Counter[int] = Counter()
        self.answers: list[Any] = []
        self.running: set[tuple[int, int]] = set()
        #: How many of the scenario's jobs may run at once.
        self.most = 99
        #: Actors that the database told to try again: one of a deadlock.
        self.turned_away = 0

    def put(self, *jobs: NewJob, edges: Sequence[tuple[int, int]] = (), slots: int = 0) -> None:
        with self.store.transaction() as tx:
            for name in TABLES:
                self.store._db.run(f"DELETE FROM {name}")
            tx.insert_run(NewRun(id="run", workflow="flow", status="running"))
            if slots:
                tx.make_slots("k", slots)
                self.most = slots
            self.jobs = tx.insert_jobs(jobs)
            tx.insert_edges([(self.jobs[before], self.jobs[after]) for before, after in edges])

    def hold(self, count: int = 1, *, lease_ms: int = LONG) -> None:
        held = self.store.claim(BEFORE, lease_ms=lease_ms, limit=count)
        self.held = sorted(held, key=lambda job: job.id)
        assert len(held) == count
        self.claimed.update((job.id, job.fence) for job in held)

    # ------------------------------------------------------------ what actors do

    def claims(self, worker: str, *, limit: int = 1, then: str = "finish", tries: int = 1) -> Script:
        def script(store: JobStore) -> None:
            for _ in range(tries):
                for job in self._tried(lambda: store.claim(worker, lease_ms=LONG, limit=limit)) or ():
                    self.claimed[job.id, job.fence] += 1
                    self.running.add((job.id, job.fence))
                    assert len(self.running) <= self.most, "more run than there are slots"
                    if then == "finish":
                        self._finish(store, job)

        return script

    def finishes(self, number: int, *, parts: int = 0) -> Script:
        def script(store: JobStore) -> None:
            self._finish(store, self.held[number], parts)

        return script

    def fails(self, number: int) -> Script:
        job = self.held[number]
        return self._does(lambda store: store.fail(job.id, job.fence, "boom", retry_in_ms=0))

    def renews_and_finishes(self, number: int) -> Script:
        job = self.held[number]

        def script(store: JobStore) -> None:
            if self._tried(lambda: store.renew([(job.id, job.fence)], LONG)):
                self._finish(store, job)

        return script

    def gives_back(self) -> Script:
        return self._does(lambda store: store.give_back([(job.id, job.fence) for job in self.held]))

    def buries(self) -> Script:
        return self._does(lambda store: store.release_worker(BEFORE, "gone"))

    def cancels(self) -> Script:
        return self._does(lambda store: store.cancel_run("run"))

    def resumes(self) -> Script:
        return self._does(lambda store: store.resume_run("run"))

    def adds_behind(self, number: int) -> Script:
        def script(store: JobStore) -> None:
            def add() -> None:
                with store.transaction() as tx:
                    [id] = tx.insert_jobs([NewJob(run_id="run", stage="late", part=number)])
                    tx.insert_edges([(self.jobs[number], id)])

            self._tried(add)

        return script

    def enqueues(self, id: str, on_conflict: Any) -> Script:
        def script(store: JobStore) -> None:
            def add() -> str | None:
                with store.transaction() as tx:
                    return tx.insert_run(NewRun(id=id, workflow="flow", unique_key="u"), on_conflict=on_conflict)

            self.answers.append(self._tried(add))

        return script

    def takes_key(self, number: int) -> Script:
        job = self.held[number]

        def script(store: JobStore) -> None:
            def take() -> bool:
                with store.transaction() as tx:
                    return tx.take_key("key", job_id=job.id, fence=job.fence)

            self.answers.append(self._tried(take))

        return script

    def ticks(self, run: str) -> Script:
        def script(store: JobStore) -> None:
            def tick() -> None:
                with store.transaction() as tx:
                    for due in tx.due_schedules():
                        fire = FireRow(schedule=due.id, fire_at=due.next_at or 0, outcome="fired", run_id=run)
                        if tx.record_fire(fire):
                            tx.insert_run(NewRun(id=run, workflow="flow"))
                            self.answers.append(run)
                        tx.move_schedule(due.id, None)

            self._tried(tick)

        return script

    def announces(self, supervisor: str) -> Script:
        def script(store: JobStore) -> None:
            def announce() -> bool:
                with store.transaction() as tx:
                    return tx.announce_node(
                        name="n", supervisor=supervisor, host="h", body="{}", node_ms=0, silence_ms=LONG
                    )

            self.answers.append(self._tried(announce))

        return script

    def _does(self, verb: Callable[[JobStore], object]) -> Script:
        def script(store: JobStore) -> None:
            self._tried(lambda: verb(store))

        return script

    def _finish(self, store: JobStore, job: Job, parts: int = 0) -> None:
        key = f"{job.id}/{job.fence}"

        def finish() -> bool:
            with store.transaction() as tx:
                tx.finish(job.id, job.fence, result_key=key, session=1)
                tx.put_result(key, b"", run_id="run")
                if parts:
                    more = tx.insert_jobs([NewJob(run_id="run", stage="part", part=n) for n in range(parts)])
                    tx.insert_edges([(id, self.jobs[-1]) for id in more])
                tx.release([job.id])
            return True

        self.running.discard((job.id, job.fence))
        if self._tried(finish):
            self.finished[job.id] += 1

    def _tried(self, verb: Callable[[], Any]) -> Any:
        try:
            return verb()
        except StaleAttempt:
            return None
        except StoreUnavailable:
            self.turned_away += 1
            return None
        except UsageError as error:
            return error

    # ------------------------------------------------------------ what must hold

    def check(self) -> None:
        """One owner per fence, each result once, nothing released twice, nothing lost."""
        store = self.store
        assert all(count == 1 for count in self.claimed.values()), f"a fence was given twice: {self.claimed}"
        assert all(count == 1 for count in self.finished.values()), f"a result was accepted twice: {self.finished}"
        self._check_jobs()
        for name in (BEFORE, "a", "b", "c"):
            store.release_worker(name, "gone")
        while jobs := store.claim("last", lease_ms=LONG, limit=9):
            for job in jobs:
                assert (job.id, job.fence) not in self.claimed, "a fence was given twice"
                assert not self.finished[job.id], "a job that is done was handed out"
                self._finish(store, job)
        self._check_jobs()
        left = store.counts("run").keys() - {"done"}
        wanted = {"cancelled"} if store.run("run").status == "cancelled" else set()
        assert left <= wanted, f"jobs were lost: {store.counts('run')}"

    def _check_jobs(self) -> None:
        jobs = {job.id: job for job in self.store.jobs("run")}
        waits = Counter(after for before, after in self.store.edges("run") if jobs[before].state != "done")
        for job in jobs.values():
            assert job.deps_left == waits[job.id], f"job {job.id} counts {job.deps_left} before it, not {waits[job.id]}"
            assert job.state != "ready" or not waits[job.id], "a job is ready before its turn"
            assert job.state != "blocked" or waits[job.id], "a job that nobody holds up is blocked"
        ended = [job for job in jobs.values() if job.state == "done"]
        # Also where nobody else finished it: whoever the database had given the job to last is the one to do so.
        assert all(job.result_key == f"{job.id}/{job.fence}" for job in ended), "an attempt finished another's job"
        done = [job.result_key for job in ended if job.result_key]
        assert self.store.results(done).keys() == {*done}, "a job is done without its result"
        lines = Counter((line.job_id, line.fence) for line in self.store.attempts("run"))
        for (id, fence), _ in self.claimed.items():
            over = jobs[id].fence > fence or jobs[id].state != "running"
            assert lines[id, fence] == over, f"job {id}, fence {fence}: {lines[id, fence]} lines of history"
