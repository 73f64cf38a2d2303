"""What each key has used: requests and tokens a minute, requests in flight, and money; every charge can be undone.

A plain state machine in whole numbers: the time is passed in, and what is refunded leaves no trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from sage_core import SECOND, ConfigError, Paths
from sage_gateway.keys import Amount, Key, write_private

#: Seconds of a minute, each with its own sum: a refund finds the second its charge was made in.
WINDOW = 60
#: Parts of the unit of money, for sums that are exact. A price of 1 for a million tokens is 10^6 parts a token.
PARTS = 10**12
_PER_TOKEN = PARTS // 10**6

Limit = Literal["requests", "tokens", "concurrency", "budget"]


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[gateway.prices.MODEL]``: what a million tokens cost."""

    input: Amount = 1.0
    output: Amount = 1.0

    def parts(self, tokens_in: int, tokens_out: int) -> int:
        """What these tokens cost, in whole parts."""
        return tokens_in * round(self.input * _PER_TOKEN) + tokens_out * round(self.output * _PER_TOKEN)


class OverLimit(Exception):
    """A key has no room for a request; `retry_after` is in seconds, None where waiting does not help."""

    def __init__(self, limit: Limit, problem: str, retry_after: float | None) -> None:
        super().__init__(limit, problem, retry_after)
        self.limit = limit
        self.problem = problem
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.problem


class _Minute:
    """A sum over the last minute, second by second."""

    __slots__ = ("_at", "_by_second", "total")

    def __init__(self) -> None:
        self._by_second = [0] * WINDOW
        self._at = 0
        self.total = 0

    def move(self, second: int) -> None:
        """Forget what is older than a minute."""
        for passed in range(max(self._at + 1, second - WINDOW + 1), second + 1):
            self.total -= self._by_second[passed % WINDOW]
            self._by_second[passed % WINDOW] = 0
        self._at = max(self._at, second)

    def add(self, second: int, amount: int) -> None:
        """Add to a second, or take from it; one that is over a minute old counts no more."""
        if self._at - WINDOW < second <= self._at:
            self._by_second[second % WINDOW] += amount
            self.total += amount

    def room_in(self, amount: int, limit: int) -> int:
        """Seconds until so much less has been added that `amount` fits."""
        left = self.total + amount - limit
        for age in range(WINDOW - 1, -1, -1):
            if left <= 0:
                return WINDOW - 1 - age
            left -= self._by_second[(self._at - age) % WINDOW]
        return WINDOW


class _Account:
    """What has been asked for in a key's name within the last minute, and what is in flight."""

    __slots__ = ("inflight", "requests", "tokens")

    def __init__(self) -> None:
        self.requests = _Minute()
        self.tokens = _Minute()
        self.inflight = 0


class _Purse:
    """A key's money, in parts of the unit: spent for good, and held for requests in flight."""

    __slots__ = ("held", "spent")

    def __init__(self, spent: int = 0) -> None:
        self.spent = spent
        self.held = 0


class Charge:
    """What a request has taken from its key; it is settled once, by what the request really used."""

    __slots__ = ("_account", "_parts", "_price", "_purse", "_second", "_tokens", "open")

    def __init__(self, account: _Account, purse: _Purse, second: int, tokens: int, parts: int, price: Price) -> None:
        self._account = account
        self._purse = purse
        self._second = second
        self._tokens = tokens
        self._parts = parts
        self._price = price
        #: Whether it is still to be settled.
        self.open = True

    def settle(self, tokens_in: int, tokens_out: int) -> None:
        """Keep what was used and give the rest back; a second call does nothing."""
        if self.open:
            self._close(tokens_in + tokens_out, self._price.parts(tokens_in, tokens_out))

    def refund(self) -> None:
        """Undo it wholly: the request was refused, or cancelled before it gave anything."""
        if self.open:
            self._account.requests.add(self._second, -1)
            self._close(0, 0)

    def _close(self, tokens: int, parts: int) -> None:
        self.open = False
        self._account.inflight -= 1
        self._account.tokens.add(self._second, tokens - self._tokens)
        self._purse.held -= self._parts
        self._purse.spent += parts


class Limits:
    """The accounts of all keys.

    Args:
        prices: by model.
        spent: what each key had spent before, in parts, by id.
    """

    def __init__(self, prices: Mapping[str, Price] | None = None, spent: Mapping[str, int] | None = None) -> None:
        self._prices = dict(prices or {})
        self._accounts: dict[str, _Account] = {}
        self._purses = {id: _Purse(parts) for id, parts in (spent or {}).items()}

    def admit(self, key: Key, model: str, now: int, *, tokens_in: int, tokens_out: int, account: str = "") -> Charge:
        """Charge a request that may use so many tokens; raises `OverLimit`, and then has charged nothing.

        Args:
            now: integer ns on a clock that only moves on.
            account: whose minute and places it takes, where they are not the key's own; the money always is.
        """
        taken, purse = self._account(account or key.id), self._purse(key)
        second, tokens = now // SECOND, tokens_in + tokens_out
        price = self._prices.get(model, _DEFAULT)
        parts = price.parts(tokens_in, tokens_out)
        for minute in (taken.requests, taken.tokens):
            minute.move(second)
        self._check(key, taken, purse, tokens, parts)
        taken.requests.add(second, 1)
        taken.tokens.add(second, tokens)
        taken.inflight += 1
        purse.held += parts
        return Charge(taken, purse, second, tokens, parts, price)

    def _check(self, key: Key, account: _Account, purse: _Purse, tokens: int, parts: int) -> None:
        if key.concurrency and account.inflight >= key.concurrency:
            raise OverLimit("concurrency", f"{account.inflight} requests of this key are in flight already", 1.0)
        limit = key.requests_per_minute
        if limit and account.requests.total >= limit:
            problem = f"this key may send {limit} requests a minute"
            raise OverLimit("requests", problem, float(max(1, account.requests.room_in(1, limit))))
        limit = key.tokens_per_minute
        if limit and account.tokens.total + tokens > limit:
            problem = f"this key may use {limit} tokens a minute, and the request may need {tokens}"
            later = None if tokens > limit else float(max(1, account.tokens.room_in(tokens, limit)))
            raise OverLimit("tokens", problem, later)
        if key.budget and purse.spent + purse.held + parts > round(key.budget * PARTS):
            taken = (purse.spent + purse.held) / PARTS
            problem = (
                f"this key may spend {key.budget:g}, has spent {taken:g}, and the request may cost {parts / PARTS:g}"
            )
            raise OverLimit("budget", problem, None)

    def usage(self, key: Key, now: int) -> dict[str, float]:
        """What a key has used in the last minute, has in flight and has spent or may still, for people."""
        account, purse = self._account(key.id), self._purse(key)
        for minute in (account.requests, account.tokens):
            minute.move(now // SECOND)
        return {
            "requests": account.requests.total,
            "tokens": account.tokens.total,
            "in_flight": account.inflight,
            "spent": (purse.spent + purse.held) / PARTS,
        }

    def spent(self) -> dict[str, int]:
        """What each key has spent for good, in parts: what outlives the process."""
        return {id: purse.spent for id, purse in self._purses.items() if id and purse.spent}

    def _account(self, id: str) -> _Account:
        account = self._accounts.get(id)
        if account is None:
            account = self._accounts[id] = _Account()
        return account

    def _purse(self, key: Key) -> _Purse:
        purse = self._purses.get(key.id)
        if purse is None:
            purse = self._purses[key.id] = _Purse()
        return purse


_DEFAULT = Price()


def spending_path(paths: Paths) -> Path:
    """Where a project keeps what its keys have spent."""
    return paths.project / "spending.json"


def read_spending(path: Path) -> dict[str, int]:
    """What each key has spent, in parts; nothing where there is no file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        help = "without it every key may spend its budget once more: remove it if that is meant"
        raise ConfigError(str(path), f"what keys have spent cannot be read: {error}", help) from None


def write_spending(path: Path, spent: Mapping[str, int]) -> None:
    """Keep what each key has spent."""
    write_private(path, msgspec.json.encode(dict(spent)))
