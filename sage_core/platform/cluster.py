"""What the store knows of queues, nodes and shared files: mixed into `Reader` and `Transaction`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from sage_core.platform.database import Database
from sage_core.platform.records import NodeRow, QueueRow

_NODE = NodeRow.__struct_fields__
_QUEUE = QueueRow.__struct_fields__
#: Bytes of a file that one row of the database holds.
PIECE = 1 << 20


class Handle(Protocol):
    """What the mixins need of the class they are mixed into."""

    _db: Database


class ClusterReader:
    """Questions about queues, nodes and shared files."""

    def queues(self: Handle) -> list[QueueRow]:
        """List queues that hold unfinished jobs or were ever switched, by name."""
        return [
            QueueRow(**{**dict(zip(_QUEUE, row, strict=True)), "paused": bool(row[1])})
            for row in self._db.fetch("queues", {})
        ]

    def nodes(self: Handle) -> list[NodeRow]:
        """List every node that was ever announced, by name; `stopped_at` and `heartbeat_at` tell which live."""
        return [NodeRow(**dict(zip(_NODE, row, strict=True))) for row in self._db.fetch("nodes", {})]

    def blob(self: Handle, digest: str) -> bytes | None:
        """Read a shared file whole; None when it was not shared."""
        pieces = [bytes(row[0]) for row in self._db.fetch("blob", {"digest": digest})]
        return b"".join(pieces) if pieces else None

    def blobs(self: Handle) -> set[str]:
        """Digests of the files that are shared."""
        return {row[0] for row in self._db.fetch("blobs", {})}


class ClusterWriter:
    """Writes about queues, nodes and shared files, inside a transaction."""

    def switch_queue(self: Handle, name: str, *, paused: bool) -> None:
        """Pause a queue, so that nothing is claimed from it, or let it go on; running jobs are left alone."""
        self._db.write("queue_switch", {"name": name, "paused": paused})

    def make_slots(self: Handle, key: str, count: int) -> None:
        """Let at most `count` jobs of `key` run at once; running ones beyond a lowered count finish."""
        self._db.write_each("slot_insert", [{"key": key, "n": n} for n in range(count)])
        self._db.write("slots_drop", {"key": key, "count": count})

    def announce_node(
        self: Handle, *, name: str, supervisor: str, host: str, body: str, node_ms: int, silence_ms: int
    ) -> bool:
        """Speak for a node from here on; False when another supervisor does and was heard within `silence_ms`.

        Args:
            body: a `records.Node` as JSON.
            node_ms: the node's own clock, from which the store keeps how far it is off.
        """
        fields = {"name": name, "supervisor": supervisor, "host": host, "body": body}
        return self._db.write("node_announce", {**fields, "node_ms": node_ms, "silence_ms": silence_ms}) == 1

    def beat_node(self: Handle, *, name: str, supervisor: str, body: str, node_ms: int) -> bool:
        """Say that a node lives and what it has; False when another supervisor speaks for it."""
        fields = {"name": name, "supervisor": supervisor, "body": body, "node_ms": node_ms}
        return self._db.write("node_beat", fields) == 1

    def stop_node(self: Handle, *, name: str, supervisor: str) -> None:
        """Say that a node is gone."""
        self._db.write("node_stop", {"name": name, "supervisor": supervisor})

    def take_spawn(self: Handle, *, node: str, queue: str, holder: str, lease_ms: int) -> bool:
        """Win the right to start workers for a queue on a node, for `lease_ms`; or keep it, if it is the holder's."""
        fields = {"node": node, "queue": queue, "holder": holder, "lease_ms": lease_ms}
        return self._db.write("spawn_take", fields) == 1

    def drop_spawn(self: Handle, holder: str) -> None:
        """Let others start workers again."""
        self._db.write("spawn_drop", {"holder": holder})

    def take_key(self: Handle, key: str, *, job_id: int, fence: int) -> bool:
        """Say that an attempt computes the result of `key`; False while another running attempt does."""
        return self._db.write("computing_take", {"key": key, "job_id": job_id, "fence": fence}) == 1

    def drop_key(self: Handle, key: str, *, job_id: int, fence: int) -> None:
        """Forget that an attempt computed the result of `key`; one that ended counts no more in any case."""
        self._db.write("computing_drop", {"key": key, "job_id": job_id, "fence": fence})

    def put_blob(self: Handle, digest: str, pieces: Iterable[bytes]) -> None:
        """Share a file, in pieces of at most `PIECE` bytes; the same digest is the same file."""
        rows = [{"digest": digest, "n": n, "body": piece} for n, piece in enumerate(pieces)]
        self._db.write_each("blob_insert", rows)

    def drop_blobs(self: Handle, digests: Sequence[str]) -> int:
        """Stop sharing files; returns the number of pieces removed."""
        # A list travels as one JSON parameter; digests are hex and need no escaping.
        keys = "[" + ",".join(f'"{digest}"' for digest in digests) + "]"
        return self._db.write("blobs_drop", {"keys": keys})
