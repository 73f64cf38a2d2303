from __future__ import annotations

from collections.abc import Callable

import pytest
from sage_gateway.accounts import Account
from sage_gateway.errors import ApiError
from sage_gateway.testing import Running

from sage_core import Request
from sage_core.serving import Decided

Serve = Callable[..., Running]


def line(request: str) -> tuple[Request, Decided]:
    decided = Decided(
        request=request,
        kind="generate",
        model="m",
        lane="m",
        tenant="t",
        service_class="standard",
        run="",
        step="",
        worker="",
        rows=1,
        tokens=1,
        wait=0,
        engine="e",
        batch=1,
        predicted=0.0,
        actual=0.0,
        outcome="done",
    )
    return Request(id=request, kind="generate", model="m"), decided


def test_a_model_is_named_only_to_those_who_may_ask_for_it(serve: Serve) -> None:
    gateway = serve({"chat": {"backend": "fake"}, "cheap": {"backend": "fake"}}).gateway
    few = Account(models=("cheap",))
    assert gateway.model("cheap", few).name == "cheap"
    with pytest.raises(ApiError) as caught:
        gateway.model("chat", few)
    assert caught.value.message == "The model 'chat' does not exist. Did you mean 'cheap'? Known: cheap."
    with pytest.raises(ApiError, match="Did you mean 'chat'"):
        gateway.model("cht", Account())


def test_the_latest_decisions_are_remembered(serve: Serve) -> None:
    gateway = serve(gateway={"decisions": 2}).gateway
    gateway.observe([line("a"), line("b"), line("a"), line("c")])
    assert list(gateway.decisions) == ["b", "c"]


def test_ids_are_unique(running: Running) -> None:
    assert len({running.gateway.next_id() for _ in range(100)}) == 100
