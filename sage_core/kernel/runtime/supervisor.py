"""Speaks for a node: keeps as many worker processes as its queues need, sends their heartbeats, notices their deaths.

It runs no job and holds no model, so nothing keeps it from its heartbeats.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from sage_core.common.config import QueueConfig
from sage_core.common.errors import SageError, StoreUnavailable, UsageError
from sage_core.common.host import Host
from sage_core.common.records import Node, Record
from sage_core.common.telemetry import log
from sage_core.kernel.runtime.autoscale import bury_supervisors
from sage_core.kernel.runtime.crew import GRACE, Crew
from sage_core.kernel.runtime.finish import announce_left
from sage_core.kernel.runtime.launch import Project
from sage_core.kernel.runtime.schedules import fire_due
from sage_core.kernel.runtime.team import GLANCE, QueueReport, Quota, Team
from sage_core.kernel.scheduler.holdings import holdings_path, with_engines
from sage_core.kernel.scheduler.ledger import fits
from sage_core.platform.processes import this_process
from sage_core.platform.store import JobStore

#: Seconds between looks at the queues themselves.
LOOK = 1.0
#: Seconds until schedules are looked at again after one could not be fired.
RETRY = 60.0

Reason = Literal["idle", "max_jobs", "stopped", "gave_up", "away"]


class Farewell(Record):
    """Why a supervisor left, as ``sage worker --json`` prints it."""

    node: str
    reason: Reason
    queues: dict[str, QueueReport]
    #: What is wrong with the store, where that is the reason.
    error: str = ""


class Supervisor:
    """A node's supervisor, for some queues.

    Args:
        until_idle: seconds without anything to do after which it leaves; None means never. It also leaves when the
            store has been away for so long, and for two leases: its workers have lost their jobs by then.
        id: under which the right to start workers was taken for it already.
    """

    def __init__(
        self,
        project: Project,
        host: Host,
        node: Node,
        queues: Sequence[str],
        *,
        until_idle: float | None = None,
        max_jobs: int | None = None,
        grace: float = GRACE,
        id: str = "",
    ) -> None:
        self._project = project
        self._host = host
        self._node = node
        self._until_idle = until_idle
        self._grace = grace
        me = this_process("supervisor")
        self._me = msgspec.structs.replace(me, id=id or me.id, node=node.name, queue=",".join(queues))
        self._lease_ms = int(1000 * project.config.workers.lease)
        self._engines = holdings_path(project.paths)
        self._able = fits(node, self._engines)
        self._quota = Quota(max_jobs)
        self._teams = [
            Team(
                queue,
                project.config.queues.get(queue, QueueConfig()),
                Crew(
                    f"--queue={queue}",
                    f"--node={node.name}",
                    url=project.url,
                    folder=project.folder,
                    host=host,
                    paths=project.paths,
                    lease=project.config.workers.lease,
                ),
                self._quota,
                count=project.config.workers.count,
            )
            for queue in queues
        ]
        self._signals = 0
        self._reason: Reason | None = None
        self._error = ""
        self._speaks = False
        self._beat = self._looked = self._fire_from = 0.0
        self._busy_at = time.monotonic()

    def run(self) -> Farewell:
        """Serve the queues until there is a reason to leave."""
        with self._project.open_store() as store, self._woken() as wake:
            self._enter(store)
            here = time.monotonic()
            try:
                while self._reason is None:
                    try:
                        self._step(store)
                        pause, here = GLANCE, time.monotonic()
                    except StoreUnavailable as error:
                        # Workers go on with what they have; their leases outlive a short absence.
                        log("store_away", worker=self._me.id, error=error)
                        pause = LOOK
                        patience = max(self._until_idle or 0.0, 2 * self._lease_ms / 1000)
                        if self._until_idle is not None and time.monotonic() - here > patience:
                            self._reason, self._error = "away", str(error)
                    self._sleep(wake, pause)
            finally:
                self._leave(store)
        queues = {
            team.name: QueueReport(started=team.started, died=team.crew.deaths, error=team.error)
            for team in self._teams
        }
        return Farewell(node=self._node.name, reason=self._reason, queues=queues, error=self._error)

    @property
    def hurried(self) -> bool:
        """Whether it was told twice to leave, and killed its workers."""
        return self._signals > 1

    # ------------------------------------------------------------ coming and going

    def _enter(self, store: JobStore) -> None:
        bury_supervisors(store)
        store.bury_dead_workers()
        store.register_worker(self._me)
        try:
            for team in self._teams:
                if not self._take(store, team.name):
                    others = (w for w in store.live_workers() if w.node == self._node.name and w.id != self._me.id)
                    serves = [f" (process {w.pid} on {w.host})" for w in others if team.name in w.queue.split(",")]
                    raise UsageError(
                        f"Node {self._node.name!r} serves queue {team.name!r} already{''.join(serves[:1])}.",
                        "wait for it, or give this one another name: --node NAME",
                    )
            self._announce(store)
        except BaseException:
            self._goodbye(store)
            raise

    def _take(self, store: JobStore, queue: str) -> bool:
        with store.transaction() as tx:
            return tx.take_spawn(node=self._node.name, queue=queue, holder=self._me.id, lease_ms=self._lease_ms)

    def _announce(self, store: JobStore) -> None:
        """Speak for the node; processes of one machine may share a name, and then one of them speaks."""
        with store.transaction() as tx:
            self._speaks = tx.announce_node(
                name=self._node.name,
                supervisor=self._me.id,
                host=self._me.host,
                body=self._body(),
                node_ms=int(time.time() * 1000),
                silence_ms=int(1000 * self._project.config.cluster.silence),
            )
        if self._speaks:
            return
        (other,) = [node for node in store.nodes() if node.name == self._node.name]
        if other.host != self._me.host:
            raise UsageError(
                f"Node {self._node.name!r} is announced by {other.host} already.",
                "names are unique in a cluster: set [cluster] node, or --node NAME",
            )

    def _leave(self, store: JobStore) -> None:
        for team in self._teams:
            team.crew.stop(store, grace=self._grace)
        with contextlib.suppress(SageError):
            self._goodbye(store)

    def _goodbye(self, store: JobStore) -> None:
        with store.transaction() as tx:
            tx.drop_spawn(self._me.id)
            tx.stop_node(name=self._node.name, supervisor=self._me.id)
        store.stop_worker(self._me.id)

    # ------------------------------------------------------------ serving

    def _step(self, store: JobStore) -> None:
        if self._signals:
            self._reason = "stopped"
            return
        now = time.monotonic()
        if now - self._beat > self._lease_ms / 3000:
            self._heartbeat(store)
            self._beat = now
        died = [team.bury(store) for team in self._teams]
        pausing = any(team.is_pausing for team in self._teams)
        if not (any(died) or pausing or store.changed() or now - self._looked > self._look):
            return
        self._looked = now
        self._fire(store, now)
        able = self._able(store.needs_waiting(), {})
        for team in self._teams:
            team.staff(store, able, self._node.name)
        if all(team.error for team in self._teams):
            self._reason = "gave_up"
        elif self._quota.left == 0 and not any(team.crew.workers() for team in self._teams):
            self._reason = "max_jobs"
        elif self._until_idle is not None:
            self._idle(store, able, self._until_idle)

    def _fire(self, store: JobStore, now: float) -> None:
        """Fire schedules that are due, so that whoever keeps a worker up needs no timer."""
        if now < self._fire_from:
            return
        if any(each.outcome == "failed" for each in fire_due(self._project, self._host, store=store)):
            # One whose plugin is missing here stays due, and would be reported at every look.
            self._fire_from = now + RETRY

    @property
    def _look(self) -> float:
        return LOOK if self._until_idle is None else min(LOOK, self._until_idle / 4)

    def _heartbeat(self, store: JobStore) -> None:
        living = [worker for team in self._teams for worker in team.crew.living()]
        store.renew_workers([self._me.id, *living], self._lease_ms)
        # Where no worker claims, nobody else takes back what others lost.
        store.expire()
        announce_left(store, self._host)
        for team in self._teams:
            if not self._take(store, team.name):
                # This process was silent for so long that another serves the queue by now.
                team.error = team.error or "another supervisor of this node serves the queue"
        with store.transaction() as tx:
            self._speaks = self._speaks and tx.beat_node(
                name=self._node.name,
                supervisor=self._me.id,
                body=self._body(),
                node_ms=int(time.time() * 1000),
            )
        if not self._speaks:
            self._announce(store)

    def _body(self) -> str:
        return msgspec.json.encode(with_engines(self._node, self._engines)).decode()

    def _idle(self, store: JobStore, able: Sequence[str], until_idle: float) -> None:
        """Leave when everything has been quiet for long enough, and still is when others may start workers again."""
        soon = int(1000 * until_idle)
        if not all(team.is_quiet(store, able, soon) for team in self._teams):
            self._busy_at = time.monotonic()
        elif time.monotonic() - self._busy_at >= until_idle:
            with store.transaction() as tx:
                tx.drop_spawn(self._me.id)
            # Who enqueued before this found the right taken, so what it left must be looked for once more.
            quiet = all(team.is_quiet(store, able, soon) for team in self._teams)
            if quiet or not all(self._take(store, team.name) for team in self._teams):
                self._reason = "idle"

    # ------------------------------------------------------------ waiting

    def _sleep(self, wake: socket.socket | None, seconds: float) -> None:
        if wake is None:
            threading.Event().wait(seconds)
        elif select.select([wake], [], [], seconds)[0]:
            with contextlib.suppress(BlockingIOError):
                wake.recv(4096)

    @contextlib.contextmanager
    def _woken(self) -> Iterator[socket.socket | None]:
        """Take the signals that end this process or a child, and a socket that each of them wakes; where possible."""
        if threading.current_thread() is not threading.main_thread():
            yield None
            return
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        reader.setblocking(False)
        stops = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
        before = {number: signal.signal(number, self._signalled) for number in stops}
        # A child's death must only wake: without a handler, the signal does not reach the socket.
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            reader.close()
            writer.close()

    def _signalled(self, number: int, frame: object) -> None:
        """First signal: leave after the workers have given their jobs back. Second: kill them."""
        self._signals += 1
        if self._signals > 1:
            for team in self._teams:
                team.crew.kill()
