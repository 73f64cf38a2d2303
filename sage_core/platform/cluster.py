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

    def nodes_serving(self: Handle, queue: str) -> list[NodeRow]:
        """List the nodes that have a living supervisor for a queue, by name."""
        return [
            NodeRow(**dict(zip(_NODE, row, strict=True))) for row in self._db.fetch("nodes_serving", {"queue": queue})
        ]

    def nodes_running(self: Handle) -> dict[str, dict[str, int]]:
        """Count the running jobs of each node by what they need."""
        found: dict[str, dict[str, int]] = {}
        for node, needs, count in self._db.fetch("nodes_running", {}):
            found.setdefault(node, {})[needs] = count
        return found

    @property
    def shares_files(self: Handle) -> bool:
        """Whether machines that share no disk may share this database, so that files travel through it."""
        return self._db.dialect == "postgresql"

    def has_blob(self: Handle, digest: str) -> bool:
        """Whether a file is shared."""
        return bool(self._db.fetch("blob_known", {"digest": digest}))

    def blob_piece(self: Handle, digest: str, n: int) -> bytes | None:
        """Read the `n`-th piece of a shared file; None behind the last one."""
        rows = self._db.fetch("blob_piece", {"digest": digest, "n": n})
        return bytes(rows[0][0]) if rows else None

    def blobs(self: Handle) -> set[str]:
        """Digests of the files that are shared."""
        return {row[0] for row in self._db.fetch("blobs", {})}


class ClusterWriter:
    """Writes about queues, nodes and shared files, inside a transaction."""

    def switch_queue(self: Handle, name: str, *, paused: bool) -> None:
        """Pause a queue, so that nothing is claimed from it, or let it go on; running jobs are left alone."""
        self._db.write("queue_switch", {"name": name, "paused": paused})

    def make_slots(self: Handle, key: str, count: int) -> None:
        """Let at most `count` jobs of `key` run at once; of running ones beyond a lowered count, none is followed."""
        self._db.write_each("slot_insert", [{"key": key, "n": n} for n in range(count)])
        if self._db.fetch("slots_above", {"key": key, "count": count}):
            # No slot is taken in between.
            self._db.write_fetch("slot_lock", {"key": key})
            for name in ("slots_drop", "slots_leave"):
                self._db.write(name, {"key": key, "count": count})

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

    def place_jobs(self: Handle, places: Iterable[tuple[int, str]], *, patience_ms: int) -> None:
        """Mean ready jobs (id, node) for nodes; others may take them when `patience_ms` have passed."""
        self._db.write_each(
            "job_place", [{"job_id": id, "node": node, "patience_ms": patience_ms} for id, node in places]
        )

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

    def put_blob(self: Handle, digest: str, pieces: Iterable[bytes], *, start: int = 0) -> None:
        """Share a file, in pieces of at most `PIECE` bytes from the `start`-th on; the same digest is the same file."""
        for n, piece in enumerate(pieces, start):
            self._db.write("blob_insert", {"digest": digest, "n": n, "body": piece})

    def touch_blob(self: Handle, digest: str) -> bool:
        """Share a file that is shared already as if it were new; False when it is not."""
        return self._db.write("blob_touch", {"digest": digest}) > 0

    def drop_blobs(self: Handle, digests: Sequence[str], *, keep_ms: int = 0) -> int:
        """Stop sharing files, but for those shared within `keep_ms`; returns the number of pieces removed."""
        # A list travels as one JSON parameter; digests are hex and need no escaping.
        keys = "[" + ",".join(f'"{digest}"' for digest in digests) + "]"
        return self._db.write("blobs_drop", {"keys": keys, "keep_ms": keep_ms})
