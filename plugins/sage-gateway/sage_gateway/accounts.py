"""Who asks: what a key stands for, and what is booked against it."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Protocol

import msgspec

from sage_core import ServiceClass


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway knows of whoever sent a request."""

    tenant: str = "local"
    #: Name of the key; empty where none is asked for.
    key: str = ""
    #: May change engines, policies and models, and see every tenant.
    admin: bool = False
    #: Whether the client may say itself which tenant it is: only where no keys are asked for.
    trusted: bool = False
    #: Models it may ask for, by name or pattern such as ``workflow/*``; None is all of them.
    models: tuple[str, ...] | None = None
    service_class: ServiceClass = "standard"
    #: Its requests may ask for a class behind this one, and for none before it.
    bounded: bool = False
    priority: int = 0
    #: Nanoseconds asked for where the request says nothing; None is none.
    ttft: int | None = None
    tpot: int | None = None
    end_to_end: int | None = None

    def allows(self, model: str) -> bool:
        """Whether it may ask for this model."""
        return self.models is None or any(fnmatchcase(model, pattern) for pattern in self.models)


class Permit(Protocol):
    """What is booked for one request; exactly one of its methods is called, once."""

    def settle(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Charge what was used in place of what was booked."""

    def refund(self) -> None:
        """Give everything back: the request was refused, failed or cancelled before it used anything."""


class Accounts(Protocol):
    """Knows keys; made once by the gateway. No method may wait."""

    @property
    def open_to_all(self) -> bool:
        """Whether every caller is let in, so that only loopback may be bound."""

    def known(self, token: str) -> Account:
        """The account of a bearer token, empty where the client sent none; raises `ApiError` 401."""

    def trust(self, secret: str) -> None:
        """Let in the jobs that this gateway started, which know a secret of it; see `beacon`."""

    def keep(self) -> None:
        """Write down what has been used, for the next process."""

    async def tend(self) -> None:
        """Until cancelled: write it down every few seconds, for a process that is killed."""

    def admit(self, account: Account, model: str, tokens: int) -> Permit:
        """Book a request of about so many tokens; raises `ApiError` 403 or 429."""


class Unbooked:
    """The permit where nothing is limited."""

    def settle(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Nothing was booked."""

    def refund(self) -> None:
        """Nothing was booked."""


class Open:
    """Any key, or none, is whoever uses this machine."""

    def __init__(self) -> None:
        self._account = Account(admin=True, trusted=True)
        self._permit = Unbooked()

    @property
    def open_to_all(self) -> bool:
        return True

    def known(self, token: str) -> Account:
        return self._account

    def trust(self, secret: str) -> None:
        """Everybody is let in."""

    def keep(self) -> None:
        """Nothing was used."""

    async def tend(self) -> None:
        """Nothing is used."""

    def admit(self, account: Account, model: str, tokens: int) -> Permit:
        return self._permit
