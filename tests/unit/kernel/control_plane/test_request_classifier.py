"""The classifier: deadlines, classes, and sizes that follow what engines count."""

from __future__ import annotations

import pytest

from sage_core.common.records import Caller, Request
from sage_core.kernel.control_plane.events import outline
from sage_core.kernel.control_plane.request_classifier import RequestClassifier


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


def test_expected_output_is_bounded_by_what_was_asked_and_follows_what_was_written() -> None:
    classifier = RequestClassifier()
    chat = Request(id="r", kind="generate", model="m", messages=({"role": "user", "content": "hi"},), max_tokens=100)
    shape = outline(chat, "lane")
    assert classifier.classify(shape, 0).tokens_out == 100
    for _ in range(80):
        classifier.learn(shape, tokens_in=5, tokens_out=20)
    assert classifier.classify(shape, 0).tokens_out == 20
