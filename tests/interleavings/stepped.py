"""Runs actors that share a database in an order of our choice, one SQL statement at a time.

Each actor is a thread with a handle of its own. Its thread stops before every statement until it is told to go on, so
a schedule is the order in which they are told. On PostgreSQL a statement may block on another actor's lock: that is a
legal state, seen in `pg_blocking_pids`, and the actor goes on when the lock is free. SQLite has one writer at a time: a
transaction, opened by BEGIN IMMEDIATE, runs alone, so there a step is a whole transaction, or a statement outside one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from sage_core.platform.database import Database, Parameters, Row, Step
from sage_core.platform.store import JobStore

#: Seconds after which a statement that has not come back is looked for among those that wait for a lock.
PATIENCE_S = 0.003
#: Seconds after which a schedule that does not move is a failure of this harness.
STUCK_S = 30.0

Script = Callable[[JobStore], object]


class Stepped(Database):
    """A database that stops at a gate before each statement."""

    def __init__(self, inner: Database, gate: Callable[[str], None]) -> None:
        super().__init__(inner.url, inner.statements)
        self.dialect = inner.dialect
        self._inner, self._gate = inner, gate
        self._whole = inner.dialect == "sqlite"

    def _step(self, name: str) -> None:
        if not (self._whole and self._inner.in_transaction()):
            self._gate(name)

    def fetch(self, name: str, parameters: Parameters) -> list[Row]:
        self._step(name)
        return self._inner.fetch(name, parameters)

    def write(self, name: str, parameters: Parameters) -> int:
        self._step(name)
        return self._inner.write(name, parameters)

    def write_each(self, name: str, rows: Iterable[Parameters]) -> int:
        return sum(self.write(name, row) for row in rows)

    def insert_each(self, name: str, rows: Iterable[Parameters]) -> list[int]:
        return [self.fetch(name, row)[0][0] for row in rows]

    def alone(self, name: str, parameters: Parameters) -> list[Row]:
        self._step(name)
        return self._inner.alone(name, parameters)

    def together(self, steps: Sequence[Step]) -> list[list[Row]]:
        # One round trip, but each statement sees what was committed before it.
        rows = []
        for step in steps:
            self._step(step[0])
            rows += self._inner.together([step])
        return rows

    def in_transaction(self) -> bool:
        return self._inner.in_transaction()

    def begin(self) -> None:
        # PostgreSQL's BEGIN touches nothing and takes no snapshot: a step of its own would change no outcome.
        if self._whole:
            self._gate("begin")
        self._inner.begin()

    def commit(self) -> None:
        self._step("commit")
        self._inner.commit()

    def rollback(self) -> None:
        self._step("rollback")
        self._inner.rollback()

    def run(self, text: str) -> list[Row]:
        return self._inner.run(text)

    def changed(self) -> bool:
        return self._inner.changed()

    def fileno(self) -> int | None:
        return None

    def tables(self) -> set[str]:
        return self._inner.tables()

    def lock_schema(self, key: int) -> None:
        self._inner.lock_schema(key)

    def close(self) -> None:
        self._inner.close()


class Actor(threading.Thread):
    """A thread with a handle, which runs one script after another, a step at a time."""

    def __init__(self, store_class: type[JobStore], url: str, moved: threading.Condition) -> None:
        super().__init__(daemon=True)
        self.error: BaseException | None = None
        #: The statement it stands before; None while one runs, or without a script.
        self.at: str | None = None
        self.pid = 0
        self._store_class, self._url, self._moved = store_class, url, moved
        self._script: Script | None = None
        self._go = self._closing = False
        #: Whether it has a script, or is still opening its handle.
        self.busy = True
        self.start()

    def run(self) -> None:
        try:
            opened = self._open()
        except BaseException as error:
            self.error, self.busy = error, False
            return
        store = self._store_class(Stepped(opened._db, self._stop_before))
        self._perform(store)
        opened.close()

    def _open(self) -> JobStore:
        opened = self._store_class.open(self._url)
        if opened._db.dialect == "postgresql":
            self.pid = opened._db.run("SELECT pg_backend_pid()")[0][0]
            opened._db.run("SET deadlock_timeout = '20ms'")
        return opened

    def _perform(self, store: JobStore) -> None:
        while True:
            with self._moved:
                self.busy = False
                self._moved.notify_all()
                self._moved.wait_for(lambda: self._script is not None or self._closing)
                script, self._script = self._script, None
            if script is None:
                break
            try:
                script(store)
            except BaseException as error:
                self.error = error

    def _stop_before(self, name: str) -> None:
        with self._moved:
            self.at = name
            self._moved.notify_all()
            self._moved.wait_for(lambda: self._go)
            self._go, self.at = False, None

    def begin(self, script: Script) -> None:
        """Hand over a script; the actor stops before its first statement."""
        self._script, self.busy, self.error = script, True, None

    def go(self) -> None:
        """Let the statement run that the actor stands before."""
        self._go, self.at = True, None

    def end(self) -> None:
        """Close the handle."""
        with self._moved:
            self._closing = True
            self._moved.notify_all()
        self.join(STUCK_S)


class Stage:
    """The actors of a database, and a handle that watches over them."""

    def __init__(self, url: str, count: int, store_class: type[JobStore] = JobStore) -> None:
        self.watch = JobStore.open(url)
        self._moved = threading.Condition()
        self.actors = [Actor(store_class, url, self._moved) for _ in range(count)]
        #: How often a statement was seen to wait for another actor's lock.
        self.blocked = 0
        self._quiet()
        self._raise()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *error: object) -> None:
        for actor in self.actors:
            actor.end()
        self.watch.close()

    def play(self, scripts: Sequence[Script], choose: Callable[[Sequence[int]], int]) -> list[tuple[list[int], int]]:
        """Run the scripts in the order `choose` says; returns at each step who could go, and who went."""
        with self._moved:
            for actor, script in zip(self.actors, scripts, strict=True):
                actor.begin(script)
            self._moved.notify_all()
        trace: list[tuple[list[int], int]] = []
        while True:
            self._quiet()
            able = [number for number, actor in enumerate(self.actors) if actor.at is not None]
            if not able:
                break
            chosen = choose(able)
            trace.append((able, chosen))
            with self._moved:
                self.actors[chosen].go()
                self._moved.notify_all()
        self._raise()
        return trace

    def _raise(self) -> None:
        for actor in self.actors:
            if actor.error is not None:
                raise actor.error

    def _quiet(self) -> None:
        """Wait until every actor has stopped, ended, or waits for a lock while another can go on."""
        waited = 0.0
        with self._moved:
            while under_way := [actor for actor in self.actors if actor.busy and actor.at is None]:
                if self._moved.wait(PATIENCE_S):
                    continue
                waited += PATIENCE_S
                # Where all wait for one another, PostgreSQL ends one of them.
                if any(actor.at for actor in self.actors) and all(self._waits(actor) for actor in under_way):
                    self.blocked += 1
                    return
                assert waited < STUCK_S, "an actor neither moves nor waits for a lock"

    def _waits(self, actor: Actor) -> bool:
        if not actor.pid:
            return False
        [[blockers]] = self.watch._db.run(f"SELECT pg_blocking_pids({actor.pid})")
        return bool(blockers)


def explore(play: Callable[[Callable[[Sequence[int]], int]], list[tuple[list[int], int]]], limit: int) -> int:
    """Play every schedule, depth first; returns how many there were. More than `limit` is an error."""
    prefix: list[int] = []
    for count in range(1, limit + 1):
        ahead = iter(prefix)
        trace = play(lambda able, ahead=ahead: next(ahead, able[0]))  # type: ignore[misc]
        while trace and trace[-1][1] == trace[-1][0][-1]:
            trace.pop()
        if not trace:
            return count
        able, chosen = trace[-1]
        prefix = [went for _, went in trace[:-1]] + [able[able.index(chosen) + 1]]
    raise AssertionError(f"more than {limit} schedules: sample them instead")
