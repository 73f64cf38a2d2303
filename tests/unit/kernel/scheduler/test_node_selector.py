"""Chains: filter, weigh, pick, and name whoever breaks the contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from sage_core import Candidate, Needs, Node, Place, PluginError, Work
from sage_core.builtins import default_host
from sage_core.common.config import Config, SelectorConfig
from sage_core.common.errors import ConfigError, UnknownName
from sage_core.common.registry import Registry
from sage_core.kernel.scheduler.node_selector import Chain

WORK = Work(id="w", lane="a", kind="embed", arrival=0)
THREE = [Candidate(id="a", load=1.0), Candidate(id="b", load=2.0), Candidate(id="c", load=3.0)]


class NotC:
    def admits(self, work: Work, needs: Needs, candidate: Candidate) -> bool:
        return candidate.id != "c"


class Wild:
    """Scores outside [0, 1] and one that is no number."""

    def score(self, work: Work, candidates: Sequence[Candidate]) -> Mapping[str, float]:
        return {"a": float("nan"), "b": 7.0, "c": -3.0}


class Alphabet:
    def score(self, work: Work, candidates: Sequence[Candidate]) -> Mapping[str, float]:
        return {"a": 0.0, "b": 0.5, "c": 1.0}


class LeavesOut:
    def score(self, work: Work, candidates: Sequence[Candidate]) -> Mapping[str, float]:
        return {"a": 1.0}


class Raises:
    def score(self, work: Work, candidates: Sequence[Candidate]) -> Mapping[str, float]:
        raise ZeroDivisionError("by nought")


class Tells:
    """Picks nothing, and says what it was given."""

    def pick(self, work: Work, scores: Mapping[str, float]) -> str:
        raise ValueError(dict(scores))


class Invents:
    def pick(self, work: Work, scores: Mapping[str, float]) -> str:
        return "elsewhere"


def sage_node_selectors() -> Mapping[str, str]:
    classes = {"not_c": NotC, "wild": Wild, "alphabet": Alphabet, "leaves_out": LeavesOut, "raises": Raises}
    classes |= {"invents": Invents, "tells": Tells}
    return {name: f"{__name__}:{kind.__name__}" for name, kind in classes.items()}


@pytest.fixture
def registry() -> Registry:
    host = default_host({})
    host.selectors.add("test", sage_node_selectors())
    return host.selectors


def build(registry: Registry, **config: object) -> Chain:
    return Chain.build(SelectorConfig(**config), registry)  # type: ignore[arg-type]


def picked(chain: Chain, candidates: Sequence[Candidate] = THREE) -> str:
    found = chain.pick(WORK, Needs(), candidates)
    assert found is not None
    return found.id


def test_nothing_is_picked_from_nothing(registry: Registry) -> None:
    assert build(registry, filters=("not_c",)).pick(WORK, Needs(), []) is None
    assert build(registry, filters=("not_c",)).pick(WORK, Needs(), [Candidate(id="c")]) is None


def test_filters_rule_out_before_scorers_see_the_rest(registry: Registry) -> None:
    assert picked(build(registry, filters=("not_c",), scorers={"alphabet": 1.0})) == "b"
    assert picked(build(registry, scorers={"alphabet": 1.0})) == "c"


def test_weights_decide_between_scorers(registry: Registry) -> None:
    assert picked(build(registry, scorers={"alphabet": 1.0, "least_loaded": 3.0})) == "a"
    assert picked(build(registry, scorers={"alphabet": 3.0, "least_loaded": 1.0})) == "c"


def test_scores_are_clamped_and_no_number_is_nought(registry: Registry) -> None:
    chain = build(registry, scorers={"wild": 1.0, "alphabet": 1.0}, picker="tells")
    with pytest.raises(PluginError, match=r"raised ValueError: {'a': 0.0, 'b': 0.75, 'c': 0.5}"):
        picked(chain)


def test_scorers_alone_mean_the_highest_score_with_ties_that_repeat(registry: Registry) -> None:
    equal = [Candidate(id=name) for name in "abcd"]
    works = [Work(id=f"w{n}", lane="a", kind="embed", arrival=0) for n in range(50)]
    picks = []
    for seed in (1, 1, 2):
        chain = Chain.build(SelectorConfig(scorers={"least_loaded": 1.0}), registry, seed=seed)
        picks.append([found.id for work in works if (found := chain.pick(work, Needs(), equal))])
    assert picks[0] == picks[1] != picks[2]
    assert set(picks[0]) == set("abcd")


def test_no_scorers_mean_turns(registry: Registry) -> None:
    chain = build(registry)
    assert [picked(chain) for _ in range(4)] == ["a", "b", "c", "a"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"scorers": {"leaves_out": 1.0}},
            "plugin 'leaves_out': gave candidate 'b' no score\n  help: a scorer scores every candidate",
        ),
        ({"scorers": {"raises": 1.0}}, "plugin 'raises': raised ZeroDivisionError: by nought"),
        (
            {"picker": "invents"},
            "plugin 'invents': picked 'elsewhere', which is not a candidate\n  help: candidates: a, b, c",
        ),
    ],
)
def test_whoever_breaks_the_contract_is_named(registry: Registry, config: dict[str, object], message: str) -> None:
    with pytest.raises(PluginError) as caught:
        build(registry, **config).pick(WORK, Needs(), THREE)
    assert str(caught.value) == message


def test_a_selector_of_another_kind_is_refused(registry: Registry) -> None:
    with pytest.raises(PluginError, match="plugin 'builtins': node selector 'fits' is not a NodeScorer"):
        build(registry, scorers={"fits": 1.0})


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_is_above_nought(registry: Registry, weight: float) -> None:
    with pytest.raises(ConfigError, match=r"\[selectors.mine\] scorers.alphabet: weight .* is not a number above 0"):
        Chain.named("mine", Config(selectors={"mine": SelectorConfig(scorers={"alphabet": weight})}), registry)


def test_the_default_chain_fits_then_spreads(registry: Registry) -> None:
    chain = Chain.named("default", Config(), registry)
    nodes = [
        Candidate(id="full", node=Node(name="full", cpu=4, used_cpu=4)),
        Candidate(id="free", load=5.0, node=Node(name="free", cpu=4)),
        Candidate(id="idle", node=Node(name="idle", cpu=4)),
    ]
    found = chain.pick(WORK, Needs(cpu=1), nodes)
    assert found is not None
    assert found.id == "idle"


def test_a_selector_may_be_named_where_a_chain_is(registry: Registry) -> None:
    assert picked(Chain.named("alphabet", Config(), registry)) == "c"
    assert picked(Chain.named("best", Config(), registry)) in "abc"
    assert Chain.named("not_c", Config(), registry).pick(WORK, Needs(), THREE[2:]) is None


def test_an_unknown_chain_is_suggested(registry: Registry) -> None:
    config = Config(selectors={"spread": SelectorConfig()})
    with pytest.raises(UnknownName, match=r"No node selector is named 'spred'\. Did you mean 'spread'\?"):
        Chain.named("spred", config, registry)


def test_one_candidate_is_not_scored(registry: Registry) -> None:
    chain = build(registry, filters=("not_c",), scorers={"raises": 1.0})
    assert picked(chain, [Candidate(id="a"), Candidate(id="c")]) == "a"
    assert chain.scores == {}
    with pytest.raises(PluginError, match="by nought"):
        picked(chain)


def test_a_chain_looks_at_what_is_there_unless_all_of_its_parts_say_that_they_do_not(registry: Registry) -> None:
    assert not build(registry, filters=("fits",), scorers={"least_loaded": 1.0}).local
    assert build(registry, filters=("fits",), scorers={"least_loaded": 1.0, "affinity": 1.0}).local
    assert build(registry, filters=("not_c",), scorers={"least_loaded": 1.0}).local


def test_the_default_of_places_with_room_filters_nothing(registry: Registry) -> None:
    full = Candidate(id="full", place=Place(engine="full", batch=1, room_tokens=1))
    work = Work(id="w", lane="a", kind="embed", arrival=0, tokens_in=5)
    assert Chain.named("default", Config(), registry).pick(work, Needs(), [full]) is None
    assert Chain.named("default", Config(), registry, filters=()).pick(work, Needs(), [full]) is full
