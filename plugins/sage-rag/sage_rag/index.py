"""`rag.index`: folds embedded chunks into an index that is one artifact."""

from __future__ import annotations

from sage_core import Artifact, ArtifactDir, Batch, operator
from sage_rag.records import Entry


class Index(Artifact):
    """Vectors, passages and BM25 weights; `sage_rag.store` says how they lie on disk."""


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
