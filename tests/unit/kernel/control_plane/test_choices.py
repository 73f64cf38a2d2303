"""What a place was chosen from: the best ones first, and what was ruled out last."""

from __future__ import annotations

from sage_core.common.records import Candidate, Place
from sage_core.kernel.control_plane.choices import CANDIDATES, chosen_from


def candidates(names: str) -> list[Candidate]:
    return [Candidate(id=name, place=Place(engine=name)) for name in names]


def test_the_best_places_are_told_with_their_scores_and_what_was_ruled_out_last() -> None:
    choice = chosen_from(candidates("abcd"), Place(engine="d"), {"c": 0.5, "d": 0.9}, selected=True)
    assert [each.engine for each in choice.places] == ["d", "c", "a", "b"]
    assert (choice.scores, choice.open) == ((0.9, 0.5, 0.0, 0.0), 4)
    assert choice.why == "score 0.9, the selector's choice of 4"


def test_of_many_places_the_best_are_told_and_equal_ones_in_order() -> None:
    scores = dict.fromkeys("abcdefghij", 0.5) | {"j": 0.7}
    choice = chosen_from(candidates("abcdefghij"), Place(engine="c"), scores, selected=True)
    assert "".join(each.engine for each in choice.places) == "cjabdefg"
    assert (len(choice.places), choice.open) == (CANDIDATES, 10)


def test_it_says_who_chose() -> None:
    one, two = candidates("a"), candidates("ab")
    assert chosen_from(one, Place(engine="a"), {}, selected=True).why == "the only place open"
    assert chosen_from(two, Place(engine="a"), {}, selected=True).why == "the selector's choice of 2"
    assert chosen_from(two, Place(engine="a"), {}, selected=False).why == "the least loaded of 2"
