"""Means ready jobs for nodes: softly, for the time of the node's patience, by whoever makes the jobs ready."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from sage_core.common.config import Config, SelectorConfig
from sage_core.common.errors import SageError
from sage_core.common.records import Candidate, Needs, Node, Record, Work
from sage_core.common.registry import Registry
from sage_core.common.telemetry import log
from sage_core.kernel.scheduler.ledger import needs_text, with_jobs
from sage_core.kernel.scheduler.node import this_node
from sage_core.kernel.scheduler.node_selector import Chain
from sage_core.platform.reader import Reader
from sage_core.platform.transaction import Transaction

#: Seconds for which the nodes and what runs on them are believed to be as they were found.
KNOWN = 1.0
#: What ``default`` means for jobs: the least busy node, and of equals the one where models or inputs are.
JOBS = SelectorConfig(
    filters=("capability", "fits"), scorers={"least_loaded": 1.0, "affinity": 0.5}, picker="round_robin"
)
#: Queues of driven runs start so: their drivers have workers of their own, and nobody else claims from them.
PRIVATE = "run:"


def registered(reader: Reader, config: Config) -> list[Node]:
    """Every node that was ever announced, awake or not, and this machine, which may start workers of its own."""
    found = {row.name: msgspec.json.decode(row.body, type=Node) for row in reader.nodes()}
    here = this_node(config)
    return list(({here.name: here} | found).values())


class Waiting(Record):
    """A job that is ready."""

    id: int
    work: Work
    needs: Needs
    #: Models it will call.
    models: tuple[str, ...] = ()


class Placement:
    """The configured selector chain over the nodes that serve a queue; where there is but one, it costs nothing.

    Made once per process; raises what is wrong with ``[cluster] selector``.
    """

    def __init__(self, config: Config, selectors: Registry, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._known: dict[str, tuple[float, dict[str, Node]]] = {}
        #: Jobs on each node, those meant for it since the last look included.
        self._running: dict[str, int] = {}
        name = config.cluster.selector
        given = name != "default" or name in config.selectors
        self._chain: Chain | None = Chain.named(name, config, selectors) if given else Chain.build(JOBS, selectors)

    def place(self, tx: Transaction, queue: str, jobs: Sequence[Waiting], *, here: str) -> None:
        """Mean each job for the node the chain picks, or for any where it admits none.

        Args:
            here: the node that made them ready, which has what they read.
        """
        # Workers that share a SQLite file are on one machine.
        if not jobs or queue.startswith(PRIVATE) or not tx.shares_files or self._chain is None:
            return
        nodes = self._nodes(tx, queue)
        if len(nodes) < 2:
            return
        places = []
        for job in jobs:
            try:
                chosen = self._chain.pick(job.work, job.needs, [self._candidate(n, job, here) for n in nodes.values()])
            except SageError as error:
                # A job that is placed nowhere runs anywhere; a selector that breaks must not break the run.
                log("placement_given_up", level=logging.ERROR, problem=error)
                self._chain = None
                break
            if chosen is not None:
                places.append((job.id, chosen.id))
                nodes[chosen.id] = with_jobs(nodes[chosen.id], {needs_text(job.needs): 1})
                self._running[chosen.id] = self._running.get(chosen.id, 0) + 1
        tx.place_jobs(places, patience_ms=int(1000 * self._config.cluster.patience))

    def _nodes(self, tx: Transaction, queue: str) -> dict[str, Node]:
        looked, nodes = self._known.get(queue, (float("-inf"), {}))
        if self._clock() - looked < KNOWN:
            return nodes
        rows = tx.nodes_serving(queue)
        running: Mapping[str, Mapping[str, int]] = tx.nodes_running() if len(rows) > 1 else {}
        nodes = {
            row.name: with_jobs(msgspec.json.decode(row.body, type=Node), running.get(row.name, {})) for row in rows
        }
        self._running |= {name: sum(running.get(name, {}).values()) for name in nodes}
        self._known[queue] = (self._clock(), nodes)
        return nodes

    def _candidate(self, node: Node, job: Waiting, here: str) -> Candidate:
        running = self._running.get(node.name, 0)
        there = sum(model in node.models for model in job.models) + (node.name == here)
        return Candidate(
            id=node.name,
            running=running,
            load=node.share + running / node.cpu,
            node=node,
            local=there / (len(job.models) + 1),
        )
