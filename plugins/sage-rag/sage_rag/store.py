"""An index on disk: ``vectors.npy``, ``passages.msgpack``, ``terms.json`` and BM25 weights as a sparse matrix by term.

bm25s computes the weights when the index is written. Reading needs numpy alone: a query's BM25 scores are the sum of
its terms' columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from sage_rag.records import Entry
from sage_rag.words import words

Floats = npt.NDArray[np.float32]
Ranks = npt.NDArray[np.intp]

FORMAT = 1


class Row(msgspec.Struct, frozen=True, array_like=True):
    """A passage as the index keeps it."""

    path: str
    start: int
    end: int
    text: str


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    passages: int
    dimension: int


def write(folder: Path, entries: Sequence[Entry]) -> None:
    """Write an index; its bytes depend on the entries alone, not on their order or on what else is installed."""
    rows = [_row(entry) for entry in entries]
    vectors = _block([entry.vector for entry in entries], rows)
    order = sorted(
        range(len(rows)), key=lambda i: (rows[i].path, rows[i].start, rows[i].end, rows[i].text, bytes(vectors[i]))
    )
    rows = [rows[i] for i in order]
    np.save(folder / "vectors.npy", vectors[order])
    (folder / "passages.msgpack").write_bytes(msgspec.msgpack.encode(rows))
    _write_terms(folder, [words(row.text) for row in rows])
    manifest = _Manifest(format=FORMAT, passages=len(rows), dimension=vectors.shape[1])
    (folder / "index.json").write_bytes(msgspec.json.encode(manifest))


def _row(entry: Entry) -> Row:
    start = entry.start or 0
    return Row(entry.path, start, start + len(entry.text) if entry.end is None else entry.end, entry.text)


def _block(vectors: Sequence[Any], rows: Sequence[Row]) -> Floats:
    """One L2-normalised float32 block, so that a dot product is a cosine."""
    if not vectors:
        return np.zeros((0, 0), np.float32)
    dimension = len(vectors[0])
    for vector, row in zip(vectors, rows, strict=True):
        if len(vector) != dimension:
            raise ValueError(
                f"{row.path} has a vector of dimension {len(vector)}, {rows[0].path} one of {dimension}: "
                "embed all passages of an index with one model"
            )
    block = np.asarray(vectors, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
    if len(bad):
        raise ValueError(f"{rows[bad[0]].path} has a vector that holds NaN or infinity")
    lengths = np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64))
    lengths[lengths == 0] = 1
    unit: Floats = (block / lengths[:, None]).astype(np.float32)
    return unit


def _write_terms(folder: Path, documents: Sequence[Sequence[str]]) -> None:
    terms = sorted({word for document in documents for word in document})
    number = {term: i for i, term in enumerate(terms)}
    data, indices, indptr = np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(len(terms) + 1, np.int64)
    if terms:
        # bm25s costs as much to import as numpy, and reading an index does not need it.
        import bm25s  # type: ignore[import-untyped]  # noqa: PLC0415

        # The backends are named because bm25s otherwise takes whichever of numba and scipy is installed.
        model = bm25s.BM25(method="lucene", k1=1.5, b=0.75, backend="numpy", csc_backend="numpy")
        ids = [[number[word] for word in document] for document in documents]
        model.index((ids, number), create_empty_token=False, show_progress=False)
        data, indices = model.scores["data"].astype(np.float32), model.scores["indices"].astype(np.int32)
        indptr = model.scores["indptr"].astype(np.int64)
    np.save(folder / "bm25_data.npy", data)
    np.save(folder / "bm25_indices.npy", indices)
    np.save(folder / "bm25_indptr.npy", indptr)
    (folder / "terms.json").write_bytes(msgspec.json.encode(terms))


class OpenIndex:
    """An index held open for searching: vectors are mapped, the rest is in memory."""

    def __init__(self, folder: Path) -> None:
        manifest = msgspec.json.decode((folder / "index.json").read_bytes(), type=_Manifest)
        if manifest.format != FORMAT:
            raise ValueError(f"the index has format {manifest.format}, this sage-rag reads {FORMAT}: build it again")
        self.dimension = manifest.dimension
        self.rows = msgspec.msgpack.decode((folder / "passages.msgpack").read_bytes(), type=list[Row])
        # numpy cannot map an empty file.
        self._vectors: Floats = np.load(folder / "vectors.npy", mmap_mode="r" if self.rows else None)
        self._data: Floats = np.load(folder / "bm25_data.npy")
        self._indices: npt.NDArray[np.int32] = np.load(folder / "bm25_indices.npy")
        self._indptr: npt.NDArray[np.int64] = np.load(folder / "bm25_indptr.npy")
        terms = msgspec.json.decode((folder / "terms.json").read_bytes(), type=list[str])
        self._terms = {term: i for i, term in enumerate(terms)}

    def cosines(self, vector: Any) -> Floats:
        """Cosine of every passage with the vector."""
        query = np.asarray(vector, dtype=np.float32)
        if self.rows and query.shape != (self.dimension,):
            raise ValueError(
                f"the index holds vectors of dimension {self.dimension}, the question's has {query.size}: "
                "embed both with the same model"
            )
        if not np.isfinite(query).all():
            raise ValueError("the question's vector holds NaN or infinity")
        length = float(np.linalg.norm(query.astype(np.float64)))
        if not self.rows or not length:
            return np.zeros(len(self.rows), np.float32)
        # One question at a time: a matrix product rounds otherwise than a vector's, and scores would depend on batches.
        scores: Floats = self._vectors @ (query / length).astype(np.float32)
        return scores

    def bm25(self, query: str) -> Floats:
        """BM25 score of every passage for the query; 0 where no word is shared."""
        scores = np.zeros(len(self.rows), np.float32)
        for word in words(query):
            term = self._terms.get(word)
            if term is not None:
                postings = slice(self._indptr[term], self._indptr[term + 1])
                scores[self._indices[postings]] += self._data[postings]
        return scores

    def matching(self, path_glob: str | None) -> npt.NDArray[np.bool_]:
        """Which passages lie in a file whose path matches (all without a glob); ``*`` crosses ``/``."""
        if path_glob is None:
            return np.ones(len(self.rows), np.bool_)
        known = {path: fnmatchcase(path, path_glob) for path in {row.path for row in self.rows}}
        return np.fromiter((known[row.path] for row in self.rows), np.bool_, len(self.rows))


def best(scores: Floats, allowed: npt.NDArray[np.bool_], count: int) -> Ranks:
    """The `count` allowed positions of the highest scores, best first; the lower position wins a tie."""
    positions = np.flatnonzero(allowed)
    if len(positions) > count:
        floor = np.partition(scores[positions], -count)[-count]
        positions = positions[scores[positions] >= floor]
    chosen: Ranks = positions[np.argsort(-scores[positions], kind="stable")][:count]
    return chosen


def fuse(rankings: Sequence[Ranks], constant: float) -> list[int]:
    """Reciprocal rank fusion: each ranking gives ``1 / (constant + rank)``; the lower position wins a tie."""
    total: dict[int, float] = {}
    for ranking in rankings:
        for rank, position in enumerate(ranking.tolist(), 1):
            total[position] = total.get(position, 0.0) + 1 / (constant + rank)
    return sorted(total, key=lambda position: (-total[position], position))
