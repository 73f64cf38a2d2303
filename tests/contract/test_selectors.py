"""Node selectors: the defaults and a second of each kind pass, wrong ones are found out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from sage_core import Candidate, Needs, Work
from sage_core.builtins import Affinity, Best, Capability, Fits, LeastLoaded, Pack, RoundRobin, Spread
from sage_core.testing import NodeFilterContract, NodePickerContract, NodeScorerContract
from tests.contract.suites import assert_fails


class TestCapability(NodeFilterContract):
    make = Capability


class TestFits(NodeFilterContract):
    make = Fits


class TestLeastLoaded(NodeScorerContract):
    make = LeastLoaded


class TestSpread(NodeScorerContract):
    make = Spread


class TestPack(NodeScorerContract):
    make = Pack


class TestAffinity(NodeScorerContract):
    make = Affinity


class TestBest(NodePickerContract):
    make = Best


class TestRoundRobin(NodePickerContract):
    make = RoundRobin


class HasModel:
    """A second `NodeFilter`."""

    def admits(self, work: Work, needs: Needs, candidate: Candidate) -> bool:
        return candidate.node is None or not needs.model or needs.model in candidate.node.models


class TestHasModel(NodeFilterContract):
    make = HasModel


class FewestRunning:
    """A second `NodeScorer`."""

    def score(self, work: Work, candidates: Sequence[Candidate]) -> Mapping[str, float]:
        return {each.id: 1 / (1 + each.running) for each in candidates}


class TestFewestRunning(NodeScorerContract):
    make = FewestRunning


class FirstByName:
    """A second `NodePicker`."""

    def pick(self, work: Work, scores: Mapping[str, float]) -> str:
        return min(scores)


class TestFirstByName(NodePickerContract):
    make = FirstByName


class Fickle:
    """Admits every other time."""

    asked = 0

    def admits(self, work: Work, needs: Needs, candidate: Candidate) -> bool:
        self.asked += 1
        return self.asked % 7 != 0


class Truthy:
    def admits(self, work: Work, needs: Needs, candidate: Candidate) -> object:
        return candidate.node


class RawLoad:
    def score(self, work: Work, candidates: Sequence[Candidate]) -> Mapping[str, float]:
        return {each.id: each.load for each in candidates}


class LeavesOut:
    def score(self, work: Work, candidates: Sequence[Candidate]) -> Mapping[str, float]:
        return {each.id: 1.0 for each in candidates if each.load}


class ByPosition:
    def score(self, work: Work, candidates: Sequence[Candidate]) -> Mapping[str, float]:
        return {each.id: index / len(candidates) for index, each in enumerate(candidates)}


class Invents:
    def pick(self, work: Work, scores: Mapping[str, float]) -> str:
        return "engine0"


class Consumes:
    def pick(self, work: Work, scores: dict[str, float]) -> str:
        return scores.popitem()[0]


@pytest.mark.parametrize(
    ("contract", "wrong", "test", "message"),
    [
        (NodeFilterContract, Fickle, "test_it_is_pure", "earlier questions"),
        (NodeFilterContract, Truthy, "test_it_answers_true_or_false", "admits returned Node"),
        (NodeFilterContract, RawLoad, "test_it_is_pure", "no method admits"),
        (NodeScorerContract, RawLoad, "test_every_candidate_gets_a_score_from_0_to_1", "outside"),
        (NodeScorerContract, LeavesOut, "test_every_candidate_gets_a_score_from_0_to_1", "no score for"),
        (NodeScorerContract, ByPosition, "test_the_order_of_candidates_does_not_matter", "depends on the order"),
        (NodePickerContract, Invents, "test_one_candidate_is_picked", "has no score"),
        (NodePickerContract, Consumes, "test_it_does_not_change_the_scores", "changed the mapping"),
    ],
)
def test_a_wrong_selector_fails(contract: type, wrong: type, test: str, message: str) -> None:
    assert_fails(contract, test, message, make=wrong)
