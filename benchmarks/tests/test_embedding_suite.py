"""The suite `embedding`: every side gives the bare loop's vectors, and what could not be measured is said."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from sage_bench.embedders import parts
from sage_bench.measures.embedding import Embedding, packaged, texts_of
from sage_bench.runner import Plan
from sage_bench.suite import Bench, bundled, load


def measure(tmp_path: Path, **options: object) -> Embedding:
    return msgspec.convert({"texts": 6, "request": 2, "clients": 2, **options}, Embedding)


def test_the_control_plane_is_measured_beside_the_bare_loop(tmp_path: Path) -> None:
    found = measure(tmp_path, sides=["inline"]).measure(Bench(work=tmp_path, seed=0, repeat=2))
    figures = {figure.name: figure for figure in found.figures}
    assert figures.keys() >= {"bare", "inline", "inline / bare", "inline, processor", "bare / inline, processor"}
    assert all(len(figure.values) == 2 for figure in figures.values())
    assert figures["inline / bare"].aim == 0.9
    assert found.facts["least cosine to the bare loop"]["inline"] == pytest.approx(1, abs=1e-5)
    assert found.remarks == ()


def test_a_side_that_cannot_be_measured_is_said_and_the_others_go_on(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    # An environment that is there already, in which the peer is not.
    (cache / "fastembed" / "bin").mkdir(parents=True)
    python = cache / "fastembed" / "bin" / "python"
    python.write_text("#!/bin/sh\necho no such module >&2\nexit 1\n")
    python.chmod(0o755)
    options = {"sides": ["fastembed"], "cache": str(cache)}
    found = measure(tmp_path, **options).measure(Bench(work=tmp_path / "work", seed=0, repeat=1))
    assert [figure.name for figure in found.figures] == ["bare", "bare, processor"]
    assert found.remarks == ("fastembed was not measured: a worker ended with status 1: no such module",)


def test_texts_differ_between_turns_and_not_between_runs(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text("".join(f'{{"title": "t{n}", "text": "x{n}"}}\n' for n in range(20)))
    (tmp_path / "queries.jsonl").write_text('{"text": "what"}\n')
    for data in (None, tmp_path):
        bench = Bench(work=tmp_path, seed=3, repeat=1, data=data)
        assert texts_of(bench, 12, 1) == texts_of(bench, 12, 1) != texts_of(bench, 12, 2)
        assert all(text.strip() for text in texts_of(bench, 12, 1))


def test_requests_hold_every_text_once() -> None:
    assert parts(["a", "b", "c"], 2) == [["a", "b"], ["c"]]


def test_the_packaged_model_is_a_folder_that_others_read(tmp_path: Path) -> None:
    files = {file.name for file in packaged(tmp_path / "model").iterdir()}
    assert files >= {"model.onnx", "tokenizer.json", "config.json", "tokenizer_config.json", "special_tokens_map.json"}


def test_other_software_is_measured_only_when_asked_for() -> None:
    suite = load(bundled()["embedding"])
    assert list(Plan(suite=suite, named="embedding").cases()) == ["mixed", "short"]
    assert "peers" in Plan(suite=suite, named="embedding", optional=True).cases()
