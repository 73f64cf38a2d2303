"""Every workflow of `valid/` is accepted; what becomes of some of them is held in detail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflows import sample_operators
from sage_core.kernel.dataflow.check import load
from sage_core.kernel.dataflow.graph import Graph, decode, encode

VALID = Path(__file__).parent / "valid"
FILES = sorted(VALID.glob("*.toml"))


def graph(name: str, profile: str | None = None) -> Graph:
    return load(VALID / f"{name}.toml", sample_operators.host(), profile=profile)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_loads_without_a_warning_and_survives_storage(file: Path) -> None:
    found = load(file, sample_operators.host())
    assert found.warnings == ()
    assert found.steps
    assert decode(encode(found)) == found


def test_rows_and_collects() -> None:
    found = graph("ask")
    rows = {name: (step.grain, step.out) for name, step in found.steps.items()}
    assert rows == {
        "files": ("", "files"),
        "parse": ("files", "files"),
        "chunk": ("files", "chunk"),
        "embed": ("chunk", "chunk"),
        "index": ("chunk", ""),
        "ask": ("", ""),
        "near": ("chunk", "chunk"),
        "per_file": ("chunk", "files"),
    }
    assert found.steps["parse"].max_errors == 0.01
    assert found.steps["chunk"].options == {"size": 128, "overlap": 32}
    assert found.end_to_end == 2.0
