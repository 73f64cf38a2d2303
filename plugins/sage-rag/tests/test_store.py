"""Tests for an index on disk: what is written, what comes back, and how it is searched."""

from __future__ import annotations

import json
import random
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sage_rag.records import Entry
from sage_rag.store import OpenIndex, best, fuse, write


def entries(embedding: Any, *texts: str) -> list[Entry]:
    return [
        Entry(vector=embedding(text), text=text, path=f"docs/{number % 3}.md", start=number, end=number + len(text))
        for number, text in enumerate(texts)
    ]


def opened(folder: Path, rows: list[Entry]) -> OpenIndex:
    write(folder, rows)
    return OpenIndex(folder)


def test_vectors_are_normalised_and_passages_kept(tmp_path: Path) -> None:
    vector = np.array([3.0, 4.0], np.float32)
    index = opened(tmp_path, [Entry(vector=vector, text="whole", path="a.md")])
    row = index.rows[0]
    assert (row.path, row.start, row.end, row.text) == ("a.md", 0, 5, "whole")
    assert index.cosines(vector * 7)[0] == pytest.approx(1)
    assert index.cosines(np.array([4.0, -3.0]))[0] == pytest.approx(0, abs=1e-6)


def test_a_passage_with_a_start_alone_ends_with_its_text(tmp_path: Path, embedding: Any) -> None:
    index = opened(tmp_path, [Entry(vector=embedding("x"), text="lease", path="a.md", start=10)])
    assert (index.rows[0].start, index.rows[0].end) == (10, 15)


def test_an_index_of_nothing_answers_nothing(tmp_path: Path) -> None:
    index = opened(tmp_path, [])
    assert index.rows == []
    assert len(index.cosines(np.ones(4))) == len(index.bm25("lease")) == 0


def test_passages_lie_in_the_order_of_their_place_with_their_vectors(tmp_path: Path) -> None:
    rows = [
        Entry(vector=np.eye(4, dtype=np.float32)[number], text=text, path=path, start=start)
        for number, (path, start, text) in enumerate([("b", 0, "x"), ("a", 9, "x"), ("a", 2, "y"), ("a", 2, "x")])
    ]
    index = opened(tmp_path, rows)
    assert [(row.path, row.start, row.text) for row in index.rows] == [
        ("a", 2, "x"),
        ("a", 2, "y"),
        ("a", 9, "x"),
        ("b", 0, "x"),
    ]
    assert [index.cosines(rows[number].vector).argmax() for number in (3, 2, 1, 0)] == [0, 1, 2, 3]


def test_the_bytes_do_not_depend_on_the_order_even_of_equal_places(tmp_path: Path, embedding: Any) -> None:
    rows = [Entry(vector=embedding(word), text="x", path="a.md") for word in ("one", "two", "three", "one")]
    (tmp_path / "0").mkdir()
    write(tmp_path / "0", rows)
    wanted = {file.name: file.read_bytes() for file in (tmp_path / "0").iterdir()}
    assert len(wanted) == 7
    for seed in range(1, 4):
        random.Random(seed).shuffle(rows)
        (tmp_path / str(seed)).mkdir()
        write(tmp_path / str(seed), rows)
        assert {file.name: file.read_bytes() for file in (tmp_path / str(seed)).iterdir()} == wanted


# The first index imports bm25s, which the usual deadline of an example leaves no time for.
@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.floats(-4, 4, width=16), min_size=3, max_size=3), min_size=1, max_size=5))
def test_cosines_are_those_of_the_formula(tmp_path_factory: pytest.TempPathFactory, vectors: list[list[float]]) -> None:
    rows = [Entry(vector=np.array(one, np.float32), text="x", path=str(i)) for i, one in enumerate(vectors)]
    index = opened(tmp_path_factory.mktemp("index"), rows)
    for vector in vectors:
        wanted = []
        for row in index.rows:
            other = vectors[int(row.path)]
            lengths = float(np.linalg.norm(vector) * np.linalg.norm(other))
            wanted.append(float(np.dot(vector, other)) / lengths if lengths else 0)
        assert index.cosines(vector).tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_length_of_a_question_has_no_weight(tmp_path: Path, scale: float) -> None:
    index = opened(tmp_path, [Entry(vector=np.array([3, 4], np.float32) * np.float32(scale), text="x", path="a.md")])
    assert index.cosines(np.array([3, 4], np.float32) * np.float32(scale)).tolist() == pytest.approx([1])
    assert index.cosines(np.zeros(2)).tolist() == [0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_question_whose_vector_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    index = opened(tmp_path, [Entry(vector=np.ones(2, np.float32), text="x", path="a.md")])
    with pytest.raises(ValueError, match="the question's vector holds NaN or infinity"):
        index.cosines(np.array([value, 1], np.float32))


def test_a_question_of_another_dimension_is_refused(tmp_path: Path) -> None:
    index = opened(tmp_path, [Entry(vector=np.ones(2, np.float32), text="x", path="a.md")])
    with pytest.raises(
        ValueError, match="vectors of dimension 2, the question's has 1: embed both with the same model"
    ):
        index.cosines(np.ones(1))


def test_passages_without_words_have_no_bm25_score(tmp_path: Path, embedding: Any) -> None:
    index = opened(tmp_path, entries(embedding, "...", "!!!"))
    assert index.bm25("lease").tolist() == [0, 0]


def test_bm25_equals_the_formula(tmp_path: Path, embedding: Any) -> None:
    texts = ["lease lease worker", "worker", "cats sleep all day long"]
    index = opened(tmp_path, entries(embedding, *texts))
    lengths = [3, 1, 5]
    scores = index.bm25("lease unknown worker")
    for i, row in enumerate(index.rows):
        n, expected = texts.index(row.text), 0.0
        for word, holding in (("lease", 1), ("worker", 2)):
            count = row.text.split().count(word)
            idf = np.log(1 + (3 - holding + 0.5) / (holding + 0.5))
            expected += idf * count / (count + 1.5 * (1 - 0.75 + 0.75 * lengths[n] / 3))
        assert scores[i] == pytest.approx(expected, rel=1e-5)


def test_a_word_asked_for_twice_counts_twice(tmp_path: Path, embedding: Any) -> None:
    index = opened(tmp_path, entries(embedding, "a lease ends", "cats sleep"))
    assert index.bm25("lease LEASE").tolist() == pytest.approx((2 * index.bm25("lease")).tolist())
    assert index.bm25("").tolist() == index.bm25("unknown !").tolist() == [0, 0]


@pytest.mark.parametrize("glob", ["docs/*", "*/1.md", "docs/[12].md", "*", "DOCS/*", "docs"])
def test_a_glob_keeps_the_passages_of_matching_paths(tmp_path: Path, embedding: Any, glob: str) -> None:
    index = opened(
        tmp_path, [*entries(embedding, *"abcd"), Entry(vector=embedding("x"), text="x", path="notes/a/1.md")]
    )
    assert index.matching(None).all()
    assert index.matching(glob).tolist() == [fnmatchcase(row.path, glob) for row in index.rows]


def test_mixed_dimensions_name_both_documents(tmp_path: Path) -> None:
    rows = [
        Entry(vector=np.ones(2, np.float32), text="x", path="a.md"),
        Entry(vector=np.ones(3, np.float32), text="y", path="b.md"),
    ]
    with pytest.raises(ValueError, match=r"b\.md has a vector of dimension 3, a\.md one of 2: embed all"):
        opened(tmp_path, rows)


def test_vectors_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.md has a vector that holds NaN"):
        opened(tmp_path, [Entry(vector=np.array([np.nan, 1], np.float32), text="x", path="a.md")])


def test_an_index_of_another_format_is_not_read(tmp_path: Path, embedding: Any) -> None:
    write(tmp_path, entries(embedding, "x"))
    manifest = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(ValueError, match="format 99, this sage-rag reads 1: build it again"):
        OpenIndex(tmp_path)


@settings(max_examples=50)
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=40), st.integers(1, 10), st.randoms())
def test_best_is_the_head_of_a_full_sort(scores: list[float], count: int, rng: random.Random) -> None:
    allowed = np.array([rng.random() < 0.7 for _ in scores], np.bool_)
    block = np.array(scores, np.float32)
    wanted = sorted((i for i in range(len(scores)) if allowed[i]), key=lambda i: (-scores[i], i))[:count]
    assert best(block, allowed, count).tolist() == wanted


def test_fusion_adds_reciprocal_ranks() -> None:
    # 7: 1/61 + 1/62; 3: 1/62 + 1/61, so a tie that the lower wins; 9: 1/63.
    assert fuse([np.array([7, 3]), np.array([3, 7, 9])], 60) == [3, 7, 9]
    assert fuse([np.array([5, 1, 2]), np.array([1, 2])], 60) == [1, 2, 5]


@given(st.lists(st.permutations(range(6)).flatmap(lambda all: st.integers(0, 6).map(lambda n: all[:n])), max_size=3))
def test_fusion_orders_by_the_sum_and_a_tie_by_place(rankings: list[list[int]]) -> None:
    def total(position: int) -> float:
        return sum(1 / (60 + ranking.index(position) + 1) for ranking in rankings if position in ranking)

    found = fuse([np.array(ranking, np.intp) for ranking in rankings], 60)
    assert sorted(found) == sorted({position for ranking in rankings for position in ranking})
    assert found == sorted(found, key=lambda position: (-total(position), position))
