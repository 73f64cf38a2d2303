"""Tests for `rag.index`: rows become one artifact; test_store.py says what is in it."""

from __future__ import annotations

import inspect
import random
from typing import Any

import numpy as np
import pytest
from sage_rag.index import BuildIndex, Index
from sage_rag.records import Entry
from sage_rag.store import OpenIndex

from sage_core import Batch


def entries(embedding: Any, *texts: str) -> list[Entry]:
    return [
        Entry(vector=embedding(text), text=text, path=f"docs/{number % 3}.md", start=number, end=number + len(text))
        for number, text in enumerate(texts)
    ]


def build(ctx: Any, rows: list[Entry], batch: int = 64) -> Index:
    fold = BuildIndex()
    for start in range(0, len(rows), batch):
        fold.add(Batch(rows[start : start + batch]))
    return fold.finish(ctx.new_artifact())


TEXTS = ("a lease ends", "a worker claims", "a fence only grows", "cats sleep", "the lease of a worker", "字と語")


def test_rows_in_any_order_and_batches_give_the_same_digest(ctx: Any, embedding: Any) -> None:
    rows = entries(embedding, *TEXTS)
    wanted = build(ctx, rows).digest
    shuffled = rows.copy()
    for seed in range(5):
        random.Random(seed).shuffle(shuffled)
        assert build(ctx, shuffled, batch=1 + seed).digest == wanted


def test_another_text_or_vector_gives_another_digest(ctx: Any, embedding: Any) -> None:
    wanted = build(ctx, entries(embedding, *TEXTS)).digest
    assert build(ctx, entries(embedding, *TEXTS[:-1], "字と詩")).digest != wanted
    assert build(ctx, entries(lambda text: embedding(text)[::-1], *TEXTS)).digest != wanted


def test_it_has_no_options_and_no_rows_make_an_empty_index(ctx: Any) -> None:
    assert not inspect.signature(BuildIndex).parameters
    assert OpenIndex(build(ctx, []).path).rows == []


def test_every_batch_is_in_the_index(ctx: Any, embedding: Any) -> None:
    opened = OpenIndex(build(ctx, entries(embedding, *TEXTS), batch=4).path)
    assert sorted(row.text for row in opened.rows) == sorted(TEXTS)


def test_rows_that_do_not_fit_together_publish_nothing(ctx: Any) -> None:
    fold, out = BuildIndex(), ctx.new_artifact()
    fold.add(Batch([Entry(vector=np.ones(2, np.float32), text="x", path="a.md")]))
    fold.add(Batch([Entry(vector=np.ones(3, np.float32), text="y", path="b.md")]))
    with pytest.raises(ValueError, match=r"b\.md has a vector of dimension 3, a\.md one of 2: embed all"):
        fold.finish(out)
    assert list(out.path.iterdir()) == []
