"""Accounts by API key: who a bearer token is, and what its requests take from the key's limits."""

from __future__ import annotations

import asyncio
import functools
import hmac
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from sage_core import SECOND
from sage_core.serving import log
from sage_gateway.accounts import Account, Permit
from sage_gateway.beacon import INTERNAL
from sage_gateway.errors import ApiError
from sage_gateway.keys import Key, KeyFile, Keyring
from sage_gateway.limits import Charge, Limits, OverLimit, Price, read_spending, write_spending

#: Seconds for which what was spent is not yet on the disk: what a killed gateway forgets at most.
KEEP = 5.0


class _Permit:
    """A charge that also counts what was used."""

    __slots__ = ("_charge", "_used")

    def __init__(self, charge: Charge, used: Callable[[int, int], None]) -> None:
        self._charge = charge
        self._used = used

    def settle(self, prompt_tokens: int, completion_tokens: int) -> None:
        if self._charge.open:
            self._charge.settle(prompt_tokens, completion_tokens)
            self._used(prompt_tokens, completion_tokens)

    def refund(self) -> None:
        self._charge.refund()


class KeyedAccounts:
    """The accounts of a project's keys; without any key, everybody is whoever uses this machine.

    Args:
        spending: the file that keeps what has been spent.
        used: told the tenant, the model and the tokens in and out of each answer.
        clock: integer ns on a clock that only moves on.
    """

    def __init__(
        self,
        file: KeyFile,
        *,
        spending: Path,
        prices: Mapping[str, Price] | None = None,
        used: Callable[[str, str, int, int], None] = lambda tenant, model, tokens_in, tokens_out: None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._ring = Keyring(file, lambda error: log("keys_not_read", level=logging.ERROR, error=error))
        self._clock = clock
        self._secret = ""
        self._used = used
        self._prices = dict(prices or {})
        self._limits = Limits(self._prices, read_spending(spending))
        self._keys: dict[str, Key] = {}
        self._book = _Book(spending, self._limits.spent())

    @property
    def open_to_all(self) -> bool:
        """Whether there are no keys."""
        return self._ring.open_to_all(self._clock() / SECOND)

    def trust(self, secret: str) -> None:
        self._secret = secret

    def known(self, token: str) -> Account:
        now = self._clock() / SECOND
        inside = token.startswith(INTERNAL)
        key = self._worker(token, now) if inside else self._ring.find(token, now)
        if key is None:
            problem = "this API key is not known" if token else "no API key was sent: Authorization: Bearer sk-sage-…"
            raise ApiError(401, problem, code="invalid_api_key")
        # A job's key has fewer limits than the same key in a client's hands.
        held = f"{key.id}+" if inside else key.id
        self._keys[held] = key
        return Account(
            tenant=key.tenant,
            key=held,
            admin=key.admin,
            trusted=not key.id,
            models=key.models or None,
            service_class="batch" if inside else key.service_class or "standard",
            bounded=key.service_class is not None and not key.admin,
            priority=key.priority,
            ttft=_ns(key.ttft),
            tpot=_ns(key.tpot),
            end_to_end=_ns(key.end_to_end),
        )

    def _worker(self, token: str, now: float) -> Key | None:
        """The key that a job works for: models and budget hold; the limits by the minute are those of clients."""
        secret, _, id = token.removeprefix(INTERNAL).rpartition(".")
        if not self._secret or not hmac.compare_digest(secret.encode(), self._secret.encode()):
            return None
        key = self._ring.named(id, now)
        if key is None:
            return None
        return msgspec.structs.replace(
            key, id=key.id, admin=False, requests_per_minute=0, tokens_per_minute=0, concurrency=0, priority=0
        )

    def admit(self, account: Account, model: str, tokens: int) -> Permit:
        key = self._keys[account.key]
        if not key.allows(model):
            problem = f"this API key may not use the model {model!r}; it may use: {', '.join(key.models)}"
            raise ApiError(403, problem, code="model_not_allowed", param="model")
        price, now = self._prices.get(model, Price()), self._clock()
        # What is in and what is out is known at the end; until then the dearer of the two is held.
        dearer = price.output > price.input
        try:
            charge = self._limits.admit(
                key,
                model,
                now,
                tokens_in=0 if dearer else tokens,
                tokens_out=tokens if dearer else 0,
                account=account.key,
            )
        except OverLimit as over:
            code = "insufficient_quota" if over.limit == "budget" else "rate_limit_exceeded"
            raise ApiError(429, str(over), code=code, retry_after=over.retry_after) from None
        return _Permit(charge, functools.partial(self._used, account.tenant, model))

    def usage(self, account: Account) -> dict[str, float]:
        """What an account's key has used."""
        return self._limits.usage(self._keys[account.key], self._clock())

    async def tend(self) -> None:
        while True:
            await asyncio.sleep(KEEP)
            # A disk takes its time, in which requests are answered.
            await asyncio.to_thread(self._book.write, *self._book.page(self._limits.spent()))

    def keep(self) -> None:
        self._book.write(*self._book.page(self._limits.spent()))


class _Book:
    """What has been spent, on the disk; pages are written from any thread, and an older one never over a later."""

    def __init__(self, path: Path, kept: Mapping[str, int]) -> None:
        self._path = path
        self._kept = kept
        self._lock = threading.Lock()
        self._pages = 0
        self._written = 0

    def page(self, spent: Mapping[str, int]) -> tuple[int, Mapping[str, int]]:
        """What is to be written, and its number."""
        self._pages += 1
        return self._pages, spent

    def write(self, number: int, spent: Mapping[str, int]) -> None:
        """Write a page, if it says something else; a disk that is full is told of, and tried again with the next."""
        with self._lock:
            if number <= self._written or spent == self._kept:
                return
            try:
                write_spending(self._path, spent)
            except OSError as error:
                log("spending_not_kept", level=logging.ERROR, path=self._path, error=error)
                return
            self._written, self._kept = number, spent


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * SECOND)
