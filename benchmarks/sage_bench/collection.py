"""Test collections in BEIR's layout: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/test.tsv``; and ``qa.jsonl``."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from sage_core import UsageError


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question, the documents judged relevant, and the answers accepted."""

    id: str
    text: str
    relevant: tuple[str, ...]
    gold: tuple[str, ...] = ()


def corpus_of(folder: str | Path) -> Path:
    """The file that holds the documents, one a line."""
    return _existing(Path(folder) / "corpus.jsonl")


def read_questions(folder: str | Path, *, sample: int = 0, seed: int = 0) -> list[Question]:
    """Questions with at least one relevant document; `sample` of them drawn by `seed`, in the order of the file."""
    folder = Path(folder)
    relevant: dict[str, list[str]] = {}
    for number, line in enumerate(_existing(folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()):
        query, document, score = line.split("\t")
        if number and int(score) > 0:
            relevant.setdefault(query, []).append(document)
    gold = {}
    if (folder / "qa.jsonl").is_file():
        gold = {str(line["id"]): tuple(line["answers"]) for line in _lines(folder / "qa.jsonl")}
    found = [
        Question(
            id=str(line["_id"]),
            text=str(line["text"]),
            relevant=tuple(relevant[str(line["_id"])]),
            gold=gold.get(str(line["_id"]), ()),
        )
        for line in _lines(_existing(folder / "queries.jsonl"))
        if str(line["_id"]) in relevant
    ]
    if sample and sample < len(found):
        chosen = sorted(random.Random(seed).sample(range(len(found)), sample))
        found = [found[place] for place in chosen]
    return found


def first_documents(folder: str | Path, count: int, into: Path) -> Path:
    """Write the first `count` documents (0: all) to a corpus of their own and return its file."""
    lines = [line for line in corpus_of(folder).read_text(encoding="utf-8").splitlines() if line.strip()]
    into.mkdir(parents=True, exist_ok=True)
    written = into / "corpus.jsonl"
    written.write_text("\n".join(lines[: count or None]) + "\n", encoding="utf-8")
    return written


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.strip():
            yield json.loads(line)


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise UsageError(f"{file} does not exist", "a collection is a folder with corpus.jsonl, queries.jsonl, qrels/")
    return file
