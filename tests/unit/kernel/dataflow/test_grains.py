from __future__ import annotations

import pytest

from sage_core.kernel.dataflow.grains import Grains, Source, called
from sage_core.kernel.dataflow.graph import RUN


@pytest.fixture
def grains() -> Grains:
    """files → chunk → word; orders; pair joins chunk and orders."""
    made = Grains()
    made.open("files", RUN)
    made.open("chunk", "files")
    made.open("word", "chunk")
    made.open("orders", RUN)
    made.open("pair", "chunk", "orders")
    return made


def sources(*names: str) -> list[Source]:
    return [Source(grain=name, shown=name, path=()) for name in names]


@pytest.mark.parametrize(
    ("names", "deepest"),
    [
        ((), RUN),
        ((RUN, RUN), RUN),
        (("files", RUN), "files"),
        (("files", "word", "chunk"), "word"),
        (("files", "orders", "pair"), "pair"),
        (("pair", RUN, "chunk"), "pair"),
    ],
)
def test_the_deepest_grain_is_the_one_all_others_are_above(
    grains: Grains, names: tuple[str, ...], deepest: str
) -> None:
    assert grains.deepest(sources(*names)) == deepest
    assert grains.deepest(sources(*reversed(names))) == deepest


def test_the_first_two_that_have_nothing_to_do_with_each_other_are_named(grains: Grains) -> None:
    one, two = sources("chunk", "orders")
    assert grains.deepest([*sources(RUN, "files"), one, two]) == (Source(grain="files", shown="files", path=()), two)
    assert isinstance(grains.deepest(sources("word", "pair")), tuple)


def test_lineage_goes_through_both_parents(grains: Grains) -> None:
    assert grains.lineage("pair") == {"pair", "chunk", "files", "orders", RUN}
    assert grains.lineage(RUN) == {RUN}


def test_what_lies_outside_and_what_brings_together(grains: Grains) -> None:
    assert grains.outside(sources("files", RUN), "chunk") is None
    assert grains.outside(sources("files", "orders"), "chunk") == sources("orders")[0]
    assert grains.below("files", "orders") == "pair"
    assert grains.below("word", "orders") is None


def test_grains_in_sentences() -> None:
    assert called("chunk") == "the rows of 'chunk'"
    assert called(RUN) == "the run"
