"""One connection to the store's database, whichever it is: what the store asks of SQLite and of PostgreSQL alike."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from sage_core.common.errors import StoreError

Dialect = Literal["sqlite", "postgresql"]
#: PostgreSQL's advisory lock that keeps two processes from creating or upgrading a schema at once: any constant.
SCHEMA_LOCK = 7_243_104_119

Row = tuple[Any, ...]
Parameters = Mapping[str, Any]
#: A statement by name, and its parameters or the rows to write with it.
Step = tuple[str, Parameters | Sequence[Parameters]]


def mask(url: str) -> str:
    """Hide every password in a URL, so that it can be shown, logged and stored."""
    url = re.sub(r"(://[^/@:]*:)[^/]*@", r"\1***@", url)
    return re.sub(r"((?:password|passwd|pwd|token|secret)=)[^&]*", r"\1***", url, flags=re.IGNORECASE)


def dialect_of(url: str) -> Dialect:
    """Which database a store's URL names."""
    scheme, separator, _ = url.partition("://")
    if separator and scheme in ("postgresql", "postgres"):
        return "postgresql"
    if scheme == "sqlite" and url.startswith("sqlite:///"):
        return "sqlite"
    raise StoreError(
        mask(url),
        "not a store URL",
        "use sqlite:///PATH (four slashes for an absolute path) or postgresql://USER@HOST/DATABASE",
    )


class Database(ABC):
    """A connection for one thread; every write happens between `begin` and `commit`."""

    dialect: Dialect

    def __init__(self, url: str, statements: Mapping[str, str]) -> None:
        self.url = mask(url)
        self.statements = statements

    @abstractmethod
    def fetch(self, name: str, parameters: Parameters) -> list[Row]:
        """Run a statement and return its rows."""

    @abstractmethod
    def write(self, name: str, parameters: Parameters) -> int:
        """Run a writing statement and return the number of rows it touched."""

    @abstractmethod
    def write_each(self, name: str, rows: Iterable[Parameters]) -> int:
        """Run a writing statement once per row and return the number of rows touched in all."""

    @abstractmethod
    def insert_each(self, name: str, rows: Iterable[Parameters]) -> list[int]:
        """Insert rows one by one and return the id of each."""

    @abstractmethod
    def in_transaction(self) -> bool:
        """Whether `begin` was called and neither `commit` nor `rollback` since."""

    @abstractmethod
    def begin(self) -> None:
        """Start a write transaction; transactions do not nest."""

    @abstractmethod
    def commit(self) -> None:
        """Make the transaction's writes visible; one that cannot be committed is rolled back."""

    @abstractmethod
    def rollback(self) -> None:
        """Drop the transaction's writes, also where the database has done so already."""

    @abstractmethod
    def run(self, text: str) -> list[Row]:
        """Run a statement given as text."""

    @abstractmethod
    def changed(self) -> bool:
        """Tell whether another connection has committed since the last call; costs microseconds."""

    def fileno(self) -> int | None:
        """What becomes readable when `changed` would be true; None where only asking tells."""
        return None

    @abstractmethod
    def tables(self) -> set[str]:
        """Names of the tables there are."""

    @abstractmethod
    def lock_schema(self, key: int) -> None:
        """Keep other processes from creating the schema until the open transaction ends."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection; an open transaction is rolled back."""

    def write_fetch(self, name: str, parameters: Parameters) -> list[Row]:
        """Run a writing statement and return the rows it gives back."""
        self._require_transaction()
        return self.fetch(name, parameters)

    def alone(self, name: str, parameters: Parameters) -> list[Row]:
        """Run a writing statement as a transaction of its own, of which others need not hear; return its rows."""
        self._require_no_transaction()
        return self.fetch(name, parameters)

    def together(self, steps: Sequence[Step]) -> list[list[Row]]:
        """Run writing statements one after another, in one round trip where there is one; return the rows of each.

        A statement made with `Spelling.spread` is given rows, and returns what it returned for all of them.
        """
        made: list[list[Row]] = []
        for name, given in steps:
            if isinstance(given, Mapping):
                made.append(self.write_fetch(name, given))
            elif " RETURNING " in self.statements[name]:
                made.append([row for each in given for row in self.write_fetch(name, each)])
            else:
                self.write_each(name, given)
                made.append([])
        return made

    def whole(self, steps: Sequence[Step]) -> list[list[Row]]:
        """Run writing statements as a transaction of their own; see `together`."""
        self.begin()
        try:
            made = self.together(steps)
        except BaseException:
            self.rollback()
            raise
        self.commit()
        return made

    def _require_no_transaction(self) -> None:
        if self.in_transaction():
            raise StoreError(self.url, "a transaction is already open", "transactions do not nest: pass it on instead")

    def _require_transaction(self) -> None:
        if not self.in_transaction():
            raise StoreError(self.url, "a write outside a transaction", "use: with store.transaction() as tx")
