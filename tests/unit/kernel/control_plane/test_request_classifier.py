"""The classifier: deadlines, classes, and sizes that follow what engines count."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import pytest

from sage_core.common.clock import MILLISECOND, SECOND
from sage_core.common.config import ClassConfig
from sage_core.common.errors import ConfigError
from sage_core.common.records import Caller, Request, ServiceClass
from sage_core.kernel.control_plane.events import Outline, outline
from sage_core.kernel.control_plane.request_classifier import GUESS, REMEMBERED, Lengths, RequestClassifier


def test_a_request_becomes_a_work_with_its_callers_deadline_and_class() -> None:
    caller = Caller(tenant="t", service_class="interactive", remaining=500)
    work = RequestClassifier().classify(
        outline(Request(id="r", kind="embed", model="m", caller=caller, texts=("x" * 40, "y" * 80)), "lane"), now=1_000
    )
    assert (work.id, work.lane, work.kind, work.arrival, work.deadline) == ("r", "lane", "embed", 1_000, 1_500)
    assert (work.tenant, work.service_class, work.rows, work.tokens_in, work.tokens_out) == (
        "t",
        "interactive",
        2,
        34,
        0,
    )


def test_bytes_per_token_are_learnt_for_each_lane() -> None:
    classifier = RequestClassifier()
    text = outline(Request(id="r", kind="tokenize", model="m", texts=("x" * 600,)), "dense")
    (before,) = classifier.tokens(text)
    for _ in range(60):
        classifier.learn(text, tokens_in=300, tokens_out=0)
    (after,) = classifier.tokens(text)
    assert before == 152
    assert after == pytest.approx(302, abs=2)
    other = outline(Request(id="r", kind="tokenize", model="m", texts=("x" * 600,)), "other")
    assert classifier.tokens(other) == [152]


def test_tiny_texts_teach_nothing() -> None:
    classifier = RequestClassifier()
    tiny = outline(Request(id="r", kind="embed", model="m", texts=("x",)), "lane")
    classifier.learn(tiny, tokens_in=3, tokens_out=0)
    assert classifier.tokens(outline(Request(id="s", kind="embed", model="m", texts=("x" * 400,)), "lane")) == [102]


def chat(max_tokens: int = 100, **caller: Any) -> Outline:
    message = {"role": "user", "content": "hi"}
    return outline(
        Request(
            id="r", kind="generate", model="m", messages=(message,), max_tokens=max_tokens, caller=Caller(**caller)
        ),
        "lane",
    )


class TestAnswers:
    def test_the_expected_length_is_bounded_by_what_was_asked_and_follows_what_was_written(self) -> None:
        classifier = RequestClassifier()
        shape = chat()
        assert classifier.classify(shape, 0).tokens_out == 100
        assert classifier.classify(chat(100_000), 0).tokens_out == GUESS
        for _ in range(80):
            classifier.learn(shape, tokens_in=5, tokens_out=20)
        assert 16 <= classifier.classify(shape, 0).tokens_out <= 32
        assert classifier.classify(chat(10), 0).tokens_out == 10

    def test_four_of_five_answers_are_no_longer(self) -> None:
        classifier = RequestClassifier()
        rng = random.Random(1)
        lengths = [max(1, int(rng.lognormvariate(4.8, 1.0))) for _ in range(4_000)]
        longer = 0
        for length in lengths:
            longer += length > classifier.classify(chat(4_096), 0).tokens_out
            classifier.learn(chat(4_096), tokens_in=5, tokens_out=length)
        assert 0.16 < longer / len(lengths) < 0.24

    def test_tenants_and_routes_are_told_apart_and_the_unknown_ones_take_the_models(self) -> None:
        classifier = RequestClassifier()
        for _ in range(50):
            classifier.learn(chat(4_096, tenant="a", route="/short"), 5, 10)
            classifier.learn(chat(4_096, tenant="a", route="/long"), 5, 1_000)
        short, long, other = (
            classifier.classify(chat(4_096, tenant=tenant, route=route), 0).tokens_out
            for tenant, route in (("a", "/short"), ("a", "/long"), ("b", ""))
        )
        assert 8 <= short <= 16 < 512 <= long <= 1_024
        assert short < other <= long

    def test_any_number_of_tenants_takes_a_bounded_number_of_estimates(self) -> None:
        classifier = RequestClassifier()
        for number in range(REMEMBERED + 500):
            classifier.learn(chat(tenant=f"t{number}"), 5, 10)
        assert len(classifier._written) == REMEMBERED

    def test_what_was_long_ago_fades(self) -> None:
        lengths = Lengths()
        for _ in range(5_000):
            lengths.add(1_000)
        for _ in range(400):
            lengths.add(10)
        assert lengths.quantile(0.8) <= 16


class TestDeadlines:
    CLASSES: ClassVar[dict[ServiceClass, ClassConfig]] = {
        "interactive": ClassConfig(ttft="2s", tpot="50ms", end_to_end="10s"),
        "batch": ClassConfig(end_to_end="1h"),
    }

    @pytest.mark.parametrize(
        ("caller", "within"),
        [
            ({"ttft": 7}, 7),
            ({"ttft": 7, "remaining": 9 * SECOND}, 7),
            ({"remaining": 9 * SECOND}, 7 * SECOND),
            ({"remaining": 2 * SECOND}, SECOND // 2),
            ({"service_class": "interactive"}, 2 * SECOND),
            ({"service_class": "interactive", "remaining": 9 * SECOND}, 7 * SECOND),
            ({"service_class": "batch"}, 3_598 * SECOND),
            ({"service_class": "standard"}, None),
        ],
    )
    def test_a_streams_deadline_is_that_of_its_first_token(self, caller: dict[str, Any], within: int | None) -> None:
        classifier = RequestClassifier(self.CLASSES, pace=lambda lane: 0.02)
        work = classifier.classify(chat(100, **caller), 5)
        assert work.deadline == (None if within is None else within + 5)

    @pytest.mark.parametrize(
        ("caller", "within"),
        [
            ({"remaining": 9}, 9),
            ({"ttft": 7}, 7),
            ({"service_class": "interactive"}, 10 * SECOND),
            ({"service_class": "standard"}, None),
        ],
    )
    def test_anything_else_has_its_whole_time(self, caller: dict[str, Any], within: int | None) -> None:
        texts = Request(id="r", kind="embed", model="m", texts=("x",), caller=Caller(**caller))
        work = RequestClassifier(self.CLASSES).classify(outline(texts, "lane"), 5)
        assert work.deadline == (None if within is None else within + 5)
        assert work.tpot is None

    def test_the_time_between_tokens_is_the_callers_or_its_classs(self) -> None:
        classifier = RequestClassifier(self.CLASSES)
        assert classifier.classify(chat(service_class="interactive"), 0).tpot == 50 * MILLISECOND
        assert classifier.classify(chat(service_class="interactive", tpot=9), 0).tpot == 9
        assert classifier.classify(chat(), 0).tpot is None

    def test_a_class_whose_time_is_no_duration_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"\[classes.batch\].*'soon' is not a duration"):
            RequestClassifier({"batch": ClassConfig(ttft="soon")})


def test_priority_and_prefix_reach_the_work() -> None:
    long = Request(id="r", kind="generate", model="m", prompt="x" * 1_100, caller=Caller(priority=3))
    work = RequestClassifier().classify(outline(long, "lane"), 0)
    assert work.priority == 3
    assert len(work.prefix) == 2
