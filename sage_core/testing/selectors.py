"""Contract suites for `NodeFilter`, `NodeScorer` and `NodePicker`: subclass one and set ``make``."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

import msgspec

from sage_core.common.contracts import NodeFilter, NodePicker, NodeScorer
from sage_core.common.records import Candidate, Needs, Node, Place, Work
from sage_core.testing.schedulers import sample_works
from sage_core.testing.subject import made

_GIB = 1 << 30


def sample_nodes(count: int = 24, *, seed: int = 3) -> list[Candidate]:
    """Nodes from small to large, from empty to full."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        cpu, gpu = rng.choice((1.0, 4.0, 16.0)), rng.choice((0, 0, 2))
        node = Node(
            name=f"node{number}",
            cpu=cpu,
            memory=16 * _GIB,
            gpu=gpu,
            labels=rng.choice(((), ("fast",), ("fast", "ssd"))),
            used_cpu=cpu * rng.choice((0.0, 0.5, 1.0)),
            used_memory=rng.randrange(17) * _GIB,
            used_gpu=rng.randrange(gpu + 1),
            models=rng.choice(((), ("minilm",))),
        )
        found.append(Candidate(id=node.name, running=rng.randrange(5), load=rng.uniform(0, 9), node=node))
    return found


def sample_places(count: int = 24, *, seed: int = 4) -> list[Candidate]:
    """Engines with a credit, every third an open embedding batch."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        batch = number + 1 if number % 3 == 0 else 0
        running, load = rng.randrange(9), rng.choice((0.0, rng.uniform(0, 9)))
        room = rng.randrange(4_000) if batch else 0
        place = Place(engine=f"engine{number}", running=running, load=load, batch=batch, room_tokens=room)
        found.append(Candidate(id=place.engine, running=running, load=load, place=place))
    return found


def sample_needs() -> list[Needs]:
    """From nothing to more than any node has."""
    return [
        Needs(),
        Needs(cpu=2.0, memory=4 * _GIB),
        Needs(gpu=1, labels=("fast",)),
        Needs(model="minilm"),
        Needs(cpu=1_000.0),
    ]


class NodeFilterContract:
    """What every `NodeFilter` keeps: a plain yes or no for nodes and engines, the same whenever it is asked."""

    make: Callable[..., object]

    def _make(self) -> NodeFilter:
        selector = made(self)
        assert isinstance(selector, NodeFilter), f"{type(selector).__name__} has no method admits"
        return selector

    def _answers(self, selector: NodeFilter) -> list[object]:
        return [
            selector.admits(work, needs, candidate)
            for candidate in [*sample_nodes(), *sample_places()]
            for needs in sample_needs()
            for work in sample_works(3)
        ]

    def test_it_answers_true_or_false(self) -> None:
        for answer in self._answers(self._make()):
            assert isinstance(answer, bool), f"admits returned {answer!r}"

    def test_it_is_pure(self) -> None:
        selector = self._make()
        first = self._answers(selector)
        assert first == self._answers(selector), "the answer depends on earlier questions"
        assert first == self._answers(self._make()), "two instances answer differently"


class NodeScorerContract:
    """What every `NodeScorer` keeps: a score in [0, 1] for each candidate, whatever the order and the number."""

    make: Callable[..., object]

    def _make(self) -> NodeScorer:
        selector = made(self)
        assert isinstance(selector, NodeScorer), f"{type(selector).__name__} has no method score"
        return selector

    def test_every_candidate_gets_a_score_from_0_to_1(self) -> None:
        selector = self._make()
        for candidates in (sample_nodes(), sample_places(), sample_places(1), sample_nodes(1)):
            for work in sample_works(5):
                scores = selector.score(work, candidates)
                missing = [each.id for each in candidates if each.id not in scores]
                assert not missing, f"no score for {missing}"
                for name, score in scores.items():
                    assert math.isfinite(score), f"score of {name} is {score}"
                    assert 0.0 <= score <= 1.0, f"score of {name} is {score}, outside [0, 1]"

    def test_it_reads_what_is_local_if_it_does_not_deny_it(self) -> None:
        selector = self._make()
        for candidates in (sample_nodes(), sample_places()):
            near = [msgspec.structs.replace(each, local=1.0) for each in candidates[::2]]
            near += [each for each in candidates if each.id not in {other.id for other in near}]
            for work in sample_works(5):
                same = selector.score(work, candidates) == selector.score(work, near)
                assert same or getattr(selector, "local", True), "it says local = False, and looks at Candidate.local"

    def test_it_bears_candidates_that_are_all_alike(self) -> None:
        alike = [Candidate(id=name, place=Place(engine=name)) for name in ("a", "b", "c")]
        scores = self._make().score(sample_works(1)[0], alike)
        assert all(0.0 <= scores[each.id] <= 1.0 for each in alike)

    def test_it_is_pure(self) -> None:
        selector, works = self._make(), sample_works(5)
        first = [dict(selector.score(work, sample_places())) for work in works]
        again = [dict(selector.score(work, sample_places())) for work in reversed(works)][::-1]
        assert first == again, "a score depends on earlier calls"

    def test_the_order_of_candidates_does_not_matter(self) -> None:
        work, candidates = sample_works(1)[0], sample_places()
        forward = dict(self._make().score(work, candidates))
        backward = dict(self._make().score(work, candidates[::-1]))
        assert forward == backward, "a score depends on the order of the candidates"


class NodePickerContract:
    """What every `NodePicker` keeps: it picks one of the scored, and the same calls give the same picks."""

    make: Callable[..., object]

    def _make(self) -> NodePicker:
        selector = made(self)
        assert isinstance(selector, NodePicker), f"{type(selector).__name__} has no method pick"
        return selector

    def _calls(self) -> list[tuple[Work, dict[str, float]]]:
        rng = random.Random(5)
        works = sample_works(200)
        return [
            (work, {f"engine{n}": rng.choice((0.0, 0.5, 1.0, rng.random())) for n in range(rng.randrange(1, 65))})
            for work in works
        ]

    def test_it_picks_one_of_the_scored(self) -> None:
        picker = self._make()
        for work, scores in self._calls():
            chosen = picker.pick(work, scores)
            assert chosen in scores, f"picked {chosen!r}, which has no score"

    def test_one_candidate_is_picked(self) -> None:
        chosen = self._make().pick(sample_works(1)[0], {"only": 0.0})
        assert chosen == "only", f"picked {chosen!r}, which has no score"

    def test_the_same_calls_give_the_same_picks(self) -> None:
        first, second = self._make(), self._make()
        calls = self._calls()
        assert [first.pick(*call) for call in calls] == [second.pick(*call) for call in calls]

    def test_it_does_not_change_the_scores(self) -> None:
        picker = self._make()
        for work, scores in self._calls():
            before: Mapping[str, float] = dict(scores)
            picker.pick(work, scores)
            assert scores == before, "pick changed the mapping it was given"
