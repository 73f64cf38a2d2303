"""``/sage/v1/tokenize``: spans as the engine gives them, bounds, and engines that cannot."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sage_gateway.testing import Running
from sage_gateway.testing_project import asked

PATH = "/sage/v1/tokenize"


def test_the_tokens_of_each_text_are_told_by_their_letters(running: Running) -> None:
    status, told = asked(running, PATH, {"model": "echo", "input": ["one two", "\u00fcber"]})
    assert (status, told["model"]) == (200, "echo")
    assert told["data"] == [{"index": 0, "spans": [[0, 3], [4, 7]]}, {"index": 1, "spans": [[0, 4]]}]
    assert asked(running, PATH, {"model": "echo", "input": "one"})[1]["data"] == [{"index": 0, "spans": [[0, 3]]}]
    assert running.settled()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"model": "echo", "input": []}, 400, "length >= 1"),
        ({"model": "echo", "input": ["x"] * 2_049}, 400, "length <= 2048"),
        ({"model": "echo", "input": "x" * (4 * 2**20 + 1)}, 400, "at most 4194304 are taken"),
        ({"model": "echo", "input": [1]}, 400, "input[0]: Expected 'str'"),
        ({"model": "nobody", "input": "x"}, 404, "does not exist"),
    ],
)
def test_what_cannot_be_asked_is_refused(running: Running, body: object, status: int, said: str) -> None:
    found, told = asked(running, PATH, body)
    assert (found, said in told["error"]["message"]) == (status, True), told


def test_a_model_that_does_not_tokenize_says_what_it_can(serve: Callable[..., Running]) -> None:
    running = serve({"mute": {"backend": "fake", "kinds": ["generate"]}})
    status, told = asked(running, PATH, {"model": "mute", "input": "x"})
    assert (status, told["error"]["code"]) == (400, "unsupported")
    assert "it cannot tokenize" in told["error"]["message"]
