"""From files to a prompt, by calling the operators as plain functions."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sage_rag.chunk import chunk
from sage_rag.files import files
from sage_rag.index import BuildIndex
from sage_rag.parse import Parse
from sage_rag.prompt import prompt
from sage_rag.records import Chunk, Entry
from sage_rag.retrieve import retrieve

from sage_core import Batch


async def collect(text: str, ctx: Any, **options: Any) -> list[Chunk]:
    return [piece async for piece in chunk(text, ctx=ctx, **options)]


def test_a_question_finds_its_document(
    tmp_path: Path, ctx: Any, embedding: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "lease.md").write_text("# Leases\n\nA crashed worker loses its lease, and another worker claims the job.\n")
    (docs / "cats.html").write_text("<title>Cats</title><p>Cats sleep most of the day.</p>")
    parse, build = Parse(), BuildIndex()
    for file in files(path=str(docs), ctx=ctx):
        document = parse(file)
        rows = [
            Entry(vector=embedding(piece.text), text=piece.text, path=file.path, start=piece.start, end=piece.end)
            for piece in asyncio.run(collect(document.text, ctx, size=64, overlap=8))
        ]
        build.add(Batch(rows))
    index = build.finish(ctx.new_artifact())
    question = "What happens to a job when its worker crashed?"
    passages = retrieve(embedding(question), question, index, k=1, ctx=ctx)
    assert [passage.path for passage in passages] == ["docs/lease.md"]
    text = prompt(question, passages)
    assert "[1] docs/lease.md" in text
    assert question in text
