"""The functions behind `sage engines`; through the command, they are tested in test_engines.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sage_gateway import engine_list
from sage_gateway.errors import ApiError
from sage_gateway.testing import Running

Serve = Callable[..., Running]


def test_a_member_that_is_not_open_is_listed_too(running: Running) -> None:
    (row,) = running.call(lambda: engine_list.rows(running.gateway))
    assert (row["model"], row["member"], row["engine"], row["state"]) == ("echo", 0, "", "closed")


def test_an_added_engine_has_what_its_model_has(serve: Serve) -> None:
    running = serve({"echo": {"backend": "fake", "sequences": 5, "min": 0}})
    running.call(lambda: engine_list.add(running.gateway, "echo", {"source": "b"}))
    first, second = running.call(lambda: running.gateway.driver.pools.members(running.gateway.lanes["echo"]))
    assert (first.source, second.source) == ("", "b")
    assert first.options == second.options == {"sequences": 5}


@pytest.mark.parametrize("name", ["echo/9", "other/0", "echo", "", "echo/-1"])
def test_an_unknown_engine_is_named_with_the_candidates(running: Running, name: str) -> None:
    with pytest.raises(ApiError) as caught:
        running.call(lambda: engine_list.number_of(running.gateway, name))
    assert caught.value.status == 404
    assert caught.value.message.endswith("Known: echo/0.")


def test_a_table_that_cannot_be_served_changes_nothing(running: Running) -> None:
    with pytest.raises(ApiError) as caught:
        running.call(lambda: engine_list.add(running.gateway, "other", {"backend": "fake", "needs": 3}))
    assert caught.value.status == 400
    assert running.gateway.names(running.gateway.accounts.known("")) == ["echo"]


@pytest.mark.parametrize(
    ("name", "table", "said"),
    [
        ("echo", {"backend": "fakr"}, "no backend is named 'fakr'. Did you mean 'fake'?"),
        ("new", {"backend": "fakr"}, "no backend is named 'fakr'"),
        ("new", {"backend": "fake", "min": 1}, "engine.min is not of one engine: set it in [models.new]"),
        ("echo", {"queue": {"requests": 5}}, "engine.queue is not of one engine"),
        ("echo", {"engines": [{}]}, "engine.engines is not of one engine"),
        ("echo", {"base_url": ["http://a", "http://b"]}, "engine.base_url must be a text"),
        ("new", {"backend": "fake", "needs": {"memory": "lots"}}, "'lots'"),
        ("workflow/ask", {"backend": "fake"}, "is the name of a workflow"),
    ],
)
def test_what_could_never_be_opened_is_refused_at_once(
    running: Running, name: str, table: dict[str, Any], said: str
) -> None:
    before = running.call(lambda: engine_list.rows(running.gateway))
    with pytest.raises(ApiError) as caught:
        running.call(lambda: engine_list.add(running.gateway, name, table))
    assert caught.value.status == 400
    assert said in caught.value.message
    assert running.call(lambda: engine_list.rows(running.gateway)) == before
