"""Accounts by key: what a token stands for, and what its requests are refused for."""

from __future__ import annotations

from pathlib import Path

import pytest
from sage_gateway.errors import ApiError
from sage_gateway.keyed import KEEP, KeyedAccounts
from sage_gateway.keys import KeyFile
from sage_gateway.limits import PARTS, Price, read_spending

from sage_core import SECOND
from sage_core.testing import FakeClock


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


def accounts(file: KeyFile, clock: FakeClock | None = None) -> KeyedAccounts:
    clock = clock or FakeClock()
    prices = {"m": Price(input=1.0, output=3.0)}
    return KeyedAccounts(file, spending=file.path.with_name("spending.json"), prices=prices, clock=clock.now)


def test_a_token_stands_for_what_its_key_says(file: KeyFile) -> None:
    text, key = file.add(tenant="search", service_class="interactive", priority=2, ttft=0.5, models=("m",))
    found = accounts(file).known(text)
    assert (found.tenant, found.key, found.admin, found.trusted) == ("search", key.id, False, False)
    assert (found.service_class, found.priority, found.ttft, found.tpot) == ("interactive", 2, 500_000_000, None)


def test_a_token_that_is_not_known_is_refused_without_being_repeated(file: KeyFile) -> None:
    file.add(tenant="search")
    for token, said in (("sk-sage-wrong", "is not known"), ("", "no API key was sent")):
        with pytest.raises(ApiError, match=said) as refused:
            accounts(file).known(token)
        assert refused.value.status == 401
        assert "wrong" not in refused.value.message


def test_without_keys_everybody_may_do_everything(file: KeyFile) -> None:
    open_ = accounts(file)
    account = open_.known("whatever")
    assert open_.open_to_all
    assert (account.admin, account.trusted, account.tenant) == (True, True, "local")
    open_.admit(account, "m", 10).settle(1, 1)


def test_a_model_that_a_key_may_not_use_is_refused(file: KeyFile) -> None:
    text, _ = file.add(tenant="search", models=("embed*",))
    book = accounts(file)
    with pytest.raises(ApiError, match=r"may not use the model 'm'; it may use: embed\*") as refused:
        book.admit(book.known(text), "m", 1)
    assert refused.value.status == 403


def test_over_a_limit_is_429_with_when_to_come_back(file: KeyFile) -> None:
    text, _ = file.add(tenant="search", requests_per_minute=1)
    book = accounts(file)
    first = book.admit(book.known(text), "m", 5)
    with pytest.raises(ApiError) as refused:
        book.admit(book.known(text), "m", 5)
    assert (refused.value.status, refused.value.code, refused.value.retry_after) == (429, "rate_limit_exceeded", 60.0)
    first.refund()
    book.admit(book.known(text), "m", 5)


def test_the_dearer_tokens_are_held_and_what_was_used_is_kept_on_the_disk(file: KeyFile) -> None:
    text, key = file.add(tenant="search", budget=3.0)
    clock = FakeClock()
    book = accounts(file, clock)
    held = book.admit(book.known(text), "m", 1_000_000)
    with pytest.raises(ApiError) as refused:
        book.admit(book.known(text), "m", 1)
    assert refused.value.code == "insufficient_quota"
    held.settle(500_000, 100_000)
    clock.advance(KEEP / SECOND + 1)
    book.admit(book.known(text), "m", 0).refund()
    assert read_spending(file.path.with_name("spending.json")) == {key.id: PARTS * 8 // 10}
