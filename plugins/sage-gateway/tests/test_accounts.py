from __future__ import annotations

import pytest
from sage_gateway.accounts import Account, Open


def test_without_keys_everybody_is_an_admin_who_says_who_they_are() -> None:
    account = Open().known("whatever")
    assert account.admin
    assert account.trusted
    assert account.allows("anything")
    Open().admit(account, "m", 1_000_000).settle(1, 1)


@pytest.mark.parametrize(
    ("models", "allowed"),
    [(None, True), (("chat",), True), (("workflow/*", "c*"), True), (("other",), False), ((), False)],
)
def test_models_are_named_or_matched(models: tuple[str, ...] | None, allowed: bool) -> None:
    assert Account(models=models).allows("chat") is allowed
