"""Limits: what is charged is exactly what was used, whatever happens in between."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sage_gateway.keys import Key
from sage_gateway.limits import PARTS, Charge, Limits, OverLimit, Price, read_spending, write_spending

from sage_core import SECOND, ConfigError

KEY = Key(id="k", digest="", tenant="t")


def key(**fields: object) -> Key:
    return Key(**{"id": "k", "digest": "", "tenant": "t", **fields})  # type: ignore[arg-type]


#: What becomes of a request: seconds it waits before it is sent, tokens it may use, and how it ends.
EVENTS = st.tuples(
    st.integers(0, 45),
    st.integers(0, 500),
    st.integers(0, 500),
    st.one_of(st.none(), st.tuples(st.integers(0, 500), st.integers(0, 900))),
    st.integers(0, 6),
)


@given(st.lists(EVENTS, max_size=40), st.floats(0, 50, allow_nan=False), st.floats(0, 50, allow_nan=False))
def test_after_any_history_only_what_was_used_is_charged(
    history: list[tuple[int, int, int, tuple[int, int] | None, int]], price_in: float, price_out: float
) -> None:
    limits = Limits({"m": Price(input=price_in, output=price_out)})
    bounded = key(requests_per_minute=12, tokens_per_minute=6_000, concurrency=5, budget=0.05)
    price = Price(input=price_in, output=price_out)
    now, waiting = 0, list[tuple[Charge, int, tuple[int, int] | None]]()
    used = list[tuple[int, int, int]]()

    def end(charge: Charge, second: int, use: tuple[int, int] | None) -> None:
        if use is None:
            charge.refund()
        else:
            charge.settle(*use)
            used.append((second, sum(use), price.parts(*use)))
        # A request ends once, however often its parts say so.
        charge.refund()
        charge.settle(7, 7)

    for wait, tokens_in, tokens_out, use, keep in history:
        now += wait * SECOND
        before = limits.usage(bounded, now)
        try:
            charge = limits.admit(bounded, "m", now, tokens_in=tokens_in, tokens_out=tokens_out)
        except OverLimit:
            assert limits.usage(bounded, now) == before
        else:
            waiting.append((charge, now // SECOND, use))
        while len(waiting) > keep:
            end(*waiting.pop(0))
    for each in waiting:
        end(*each)
    recent = [entry for entry in used if entry[0] > now // SECOND - 60]
    found = limits.usage(bounded, now)
    assert found["requests"] == len(recent)
    assert found["tokens"] == sum(entry[1] for entry in recent)
    assert found["in_flight"] == 0
    assert limits.spent().get("k", 0) == sum(entry[2] for entry in used)


def test_requests_a_minute_come_back_when_the_first_is_a_minute_old() -> None:
    limits, one = Limits(), key(requests_per_minute=2)
    limits.admit(one, "m", 0, tokens_in=1, tokens_out=1).settle(1, 1)
    limits.admit(one, "m", 20 * SECOND, tokens_in=1, tokens_out=1).settle(1, 1)
    with pytest.raises(OverLimit, match="2 requests a minute") as refused:
        limits.admit(one, "m", 30 * SECOND, tokens_in=1, tokens_out=1)
    assert (refused.value.limit, refused.value.retry_after) == ("requests", 30.0)
    limits.admit(one, "m", 60 * SECOND, tokens_in=1, tokens_out=1)


def test_tokens_are_reserved_for_the_longest_answer_and_given_back() -> None:
    limits, one = Limits(), key(tokens_per_minute=100)
    first = limits.admit(one, "m", 0, tokens_in=10, tokens_out=60)
    with pytest.raises(OverLimit, match="may need 40") as refused:
        limits.admit(one, "m", 5 * SECOND, tokens_in=20, tokens_out=20)
    assert refused.value.retry_after == 55.0
    first.settle(10, 5)
    limits.admit(one, "m", 5 * SECOND, tokens_in=20, tokens_out=20)
    with pytest.raises(OverLimit) as never:
        limits.admit(one, "m", 5 * SECOND, tokens_in=90, tokens_out=20)
    assert never.value.retry_after is None


def test_requests_in_flight_are_bounded() -> None:
    limits, one = Limits(), key(concurrency=1)
    first = limits.admit(one, "m", 0, tokens_in=1, tokens_out=1)
    with pytest.raises(OverLimit, match="1 requests of this key are in flight"):
        limits.admit(one, "m", 0, tokens_in=1, tokens_out=1)
    first.refund()
    limits.admit(one, "m", 0, tokens_in=1, tokens_out=1)


def test_a_budget_outlives_the_process(tmp_path: Path) -> None:
    one, prices = key(budget=2.0), {"m": Price(input=1.0, output=4.0)}
    limits = Limits(prices)
    limits.admit(one, "m", 0, tokens_in=1_000_000, tokens_out=0).settle(1_000_000, 125_000)
    assert limits.spent() == {"k": 3 * PARTS // 2}
    path = tmp_path / "spending.json"
    assert read_spending(path) == {}
    write_spending(path, limits.spent())
    again = Limits(prices, read_spending(path))
    with pytest.raises(OverLimit, match=r"may spend 2, has spent 1\.5, and the request may cost 1"):
        again.admit(one, "m", 0, tokens_in=1_000_000, tokens_out=0)
    path.write_text("[]")
    with pytest.raises(ConfigError, match="what keys have spent cannot be read"):
        read_spending(path)


def test_one_key_never_pays_for_another() -> None:
    limits = Limits()
    limits.admit(key(concurrency=1), "m", 0, tokens_in=1, tokens_out=1)
    limits.admit(key(id="other", concurrency=1), "m", 0, tokens_in=1, tokens_out=1)
