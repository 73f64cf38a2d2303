"""`rag.index`: folds embedded chunks into an index that is one artifact."""

from __future__ import annotations

import msgspec

from sage_core import Artifact, ArtifactDir, Batch, Vector, operator


class Index(Artifact):
    """Vectors, passages and BM25 weights; `sage_rag.store` says how they lie on disk."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One passage to index; without a place it is taken for the whole document."""

    vector: Vector
    text: str
    path: str
    start: int | None = None
    end: int | None = None


@operator("rag.index", returns="index")
class BuildIndex:
    """Collects passages and writes them in the order of their place, so equal rows give equal bytes in any order.

    There is no incremental update: vectors come from the row memo, and writing 10,000 passages takes about a second.
    """

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def add(self, rows: Batch[Entry]) -> None:
        self._entries += rows

    def finish(self, out: ArtifactDir) -> Index:
        # numpy and bm25s are needed to write an index only, and `sage check` imports this module.
        from sage_rag.store import write  # noqa: PLC0415

        write(out.path, self._entries)
        return out.publish(Index)
