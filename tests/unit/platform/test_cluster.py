"""The face of queues, nodes and shared files; sage_core.testing.store_cluster has what both databases keep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_core.common.errors import StoreError
from sage_core.platform.cluster import PIECE
from sage_core.platform.records import NodeRow, QueueRow
from sage_core.platform.store import JobStore
from sage_core.testing.store_suite import submit


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    with JobStore.open(f"sqlite:///{tmp_path}/s.db") as store:
        yield store


def test_a_queue_tells_its_switch_as_a_truth_value(store: JobStore) -> None:
    with store.transaction() as tx:
        tx.switch_queue("a", paused=True)
        tx.switch_queue("b", paused=False)
    submit(store, 2)
    [a, b, default] = store.queues()
    assert (a, b) == (QueueRow(name="a", paused=True), QueueRow(name="b"))
    assert (a.paused is True, b.paused is False) == (True, True)
    assert (default.name, default.ready, default.paused) == ("default", 2, False)
    assert default.oldest_run_at == store.jobs("run")[0].run_at


def test_a_node_is_read_back_whole(store: JobStore) -> None:
    with store.transaction() as tx:
        assert tx.announce_node(name="n", supervisor="s", host="h", body='{"cpu": 2}', node_ms=tx.now(), silence_ms=1)
    [node] = store.nodes()
    assert node == NodeRow(
        name="n",
        supervisor="s",
        host="h",
        body='{"cpu": 2}',
        clock_ms=node.clock_ms,
        started_at=node.started_at,
        heartbeat_at=node.started_at,
    )
    assert abs(node.clock_ms) < 1_000


def test_a_piece_of_a_file_is_as_long_as_it_may_be(store: JobStore) -> None:
    with store.transaction() as tx:
        tx.put_blob("d", [b"x" * PIECE, b"y"])
    assert [len(store.blob_piece("d", n) or b"") for n in range(3)] == [PIECE, 1, 0]


def test_every_write_needs_a_transaction_that_is_open(store: JobStore) -> None:
    with store.transaction() as tx:
        pass
    writes = (
        lambda: tx.switch_queue("q", paused=True),
        lambda: tx.make_slots("k", 1),
        lambda: tx.take_key("k", job_id=1, fence=1),
        lambda: tx.drop_key("k", job_id=1, fence=1),
        lambda: tx.take_spawn(node="n", queue="q", holder="h", lease_ms=1),
        lambda: tx.drop_spawn("h"),
        lambda: tx.stop_node(name="n", supervisor="s"),
        lambda: tx.put_blob("d", [b""]),
        lambda: tx.drop_blobs(["d"]),
    )
    for write in writes:
        with pytest.raises(StoreError, match="a write outside a transaction"):
            write()
    assert (store.queues(), store.blobs()) == ([], set())
