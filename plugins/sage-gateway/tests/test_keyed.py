"""Accounts by key: what a token stands for, and what its requests are refused for."""

from __future__ import annotations

from pathlib import Path

import pytest
from sage_gateway.beacon import Beacon
from sage_gateway.errors import ApiError
from sage_gateway.keyed import KeyedAccounts
from sage_gateway.keys import KeyFile
from sage_gateway.limits import PARTS, Price, read_spending

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
    # What is only held is not spent: a gateway that is killed has not charged for answers that nobody got.
    book.keep()
    path = file.path.with_name("spending.json")
    assert read_spending(path) == {}
    held.settle(500_000, 100_000)
    book.admit(book.known(text), "m", 1_000)
    book.keep()
    assert read_spending(path) == {key.id: PARTS * 8 // 10}
    # The next process knows it.
    left = accounts(file)
    with pytest.raises(ApiError, match=r"has spent 0\.8"):
        left.admit(left.known(text), "m", 1_000_000)


def test_a_disk_that_is_full_costs_no_request_and_is_tried_again(file: KeyFile) -> None:
    text, key = file.add(tenant="search", budget=3.0)
    book = accounts(file)
    path = file.path.with_name("spending.json")
    path.mkdir()
    book.admit(book.known(text), "m", 10).settle(10, 0)
    book.keep()
    path.rmdir()
    book.keep()
    assert read_spending(path) == {key.id: PARTS * 10 // 10**6}


def test_an_older_page_is_not_written_over_a_later_one(file: KeyFile) -> None:
    text, key = file.add(tenant="search")
    book = accounts(file)
    book.admit(book.known(text), "m", 10).settle(10, 0)
    late = book._book.page(book._limits.spent())
    book.admit(book.known(text), "m", 10).settle(10, 0)
    book.keep()
    book._book.write(*late)
    assert read_spending(file.path.with_name("spending.json")) == {key.id: PARTS * 20 // 10**6}


def test_a_batch_takes_the_money_of_its_key_and_nothing_else(file: KeyFile) -> None:
    text, key = file.add(tenant="search", requests_per_minute=1, concurrency=1, tokens_per_minute=20, budget=0.000_05)
    book = accounts(file)
    book.trust("s")
    job = book.known(Beacon(url="", secret="s").token(key.id))
    lines = [book.admit(job, "m", 10) for _ in range(1)]
    # A client's own request finds its minute and its place free.
    book.admit(book.known(text), "m", 5).refund()
    with pytest.raises(ApiError) as poor:
        book.admit(job, "m", 10)
    assert poor.value.code == "insufficient_quota"
    lines[0].settle(1, 0)
    assert book.usage(book.known(text)) == {"requests": 0, "tokens": 0, "in_flight": 0, "spent": 1e-6}
    for secret in ("", "t", "s\u00e9"):
        with pytest.raises(ApiError, match="is not known"):
            book.known(Beacon(url="", secret=secret).token(key.id))


def test_a_key_that_is_revoked_ends_with_its_next_request(file: KeyFile) -> None:
    text, key = file.add(tenant="search")
    file.add(tenant="other")
    clock = FakeClock()
    book = accounts(file, clock)
    book.trust("s")
    running = book.admit(book.known(text), "m", 10)
    file.revoke(key.id)
    clock.advance(1.0)
    for token in (text, Beacon(url="", secret="s").token(key.id)):
        with pytest.raises(ApiError, match="is not known"):
            book.known(token)
    # What runs goes on, and is charged.
    running.settle(4, 2)
    book.keep()
    assert read_spending(file.path.with_name("spending.json")) == {key.id: PARTS * 10 // 10**6}
