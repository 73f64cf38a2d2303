"""The store in PostgreSQL: runs compiled statements over psycopg 3, and turns its errors into SAGE's.

Imported only for ``postgresql://`` URLs; the driver comes with ``sage-core[postgres]``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus

from sage_core.common.errors import StoreError, StoreUnavailable
from sage_core.platform.database import Database, Parameters, Row, Step, mask

#: Oldest server with everything the statements use, as `server_version` counts.
MINIMUM = 140_000
#: Seconds a connection may take, and a statement may wait for another's lock.
CONNECT_S, LOCK_S = 10, 30
#: When a server that does not even confirm what it was sent counts as lost: after half a minute.
SILENCE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4, "tcp_user_timeout": 30_000}
#: Every statement is made to be run by its indexes. Left alone, the planner plans most of them anew each time, which
#: takes longer than to run them, or keeps a plan for small tables that reads whole ones when they have grown.
PLANS = (
    "SET plan_cache_mode = force_generic_plan; SET jit = off;"
    " SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off"
)
#: Where handles tell one another that something was committed, and seconds between two such words of one handle.
CHANNEL, QUIET_S = "sage", 0.01

# What the driver says of a connection that was cut, it also raises: without any handler, Python would print it too.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

_IN = (TransactionStatus.INTRANS, TransactionStatus.ACTIVE, TransactionStatus.INERROR)


class PostgresDatabase(Database):
    """A connection to a PostgreSQL database; one that broke is made again where no transaction is open."""

    dialect = "postgresql"

    def __init__(self, url: str, statements: Mapping[str, str]) -> None:
        super().__init__(url, statements)
        self._conninfo = url
        self._listening = False
        self._told = 0.0
        self._owed = False
        #: Whether a transaction was begun of which the server has not heard.
        self._pending = False
        self._open()

    def fetch(self, name: str, parameters: Parameters) -> list[Row]:
        """Run a statement and return its rows."""
        return self._fetch(self.statements[name], parameters)

    def write(self, name: str, parameters: Parameters) -> int:
        """Run a writing statement and return the number of rows it touched."""
        self._require_transaction()
        self._start()
        with self._explained():
            return self._connection.execute(self.statements[name], parameters, prepare=True).rowcount

    def write_each(self, name: str, rows: Iterable[Parameters]) -> int:
        """Run a writing statement once per row and return the number of rows touched in all."""
        self._require_transaction()
        given = list(rows)
        if not given:
            return 0
        if len(given) == 1:
            return self.write(name, given[0])
        self._start()
        with self._explained(), self._connection.cursor() as cursor:
            cursor.executemany(self.statements[name], given)
            return cursor.rowcount

    def insert_each(self, name: str, rows: Iterable[Parameters]) -> list[int]:
        """Insert rows in one round trip and return the id of each."""
        self._require_transaction()
        given = list(rows)
        ids: list[int] = []
        if not given:
            return ids
        self._start()
        with self._explained(), self._connection.cursor() as cursor:
            cursor.executemany(self.statements[name], given, returning=True)
            more: bool | None = True
            while more:
                ids += [row[0] for row in cursor.fetchall()]
                more = cursor.nextset()
        return ids

    def together(self, steps: Sequence[Step]) -> list[list[Row]]:
        """Run writing statements in one round trip and return the rows of each."""
        self._require_transaction()
        with self._explained():
            pending, self._pending = self._pending, False
            if pending and self._connection.closed:
                self._open()
            with self._connection.pipeline():
                if pending:
                    self._connection.execute("BEGIN")
                cursors = [self._connection.execute(self.statements[name], _arrays(given)) for name, given in steps]
            return [cursor.fetchall() if cursor.description else [] for cursor in cursors]

    def whole(self, steps: Sequence[Step]) -> list[list[Row]]:
        """Run writing statements as a transaction of their own, which one alone is anyway."""
        if len(steps) != 1:
            return super().whole(steps)
        rows = self.alone(steps[0][0], _arrays(steps[0][1]))
        self._owed = True
        self._tell()
        return [rows]

    def in_transaction(self) -> bool:
        """Whether a transaction is open, be it a failed one."""
        return self._pending or self._connection.info.transaction_status in _IN

    def begin(self) -> None:
        """Start a transaction at READ COMMITTED: what must not move is locked by the statements themselves.

        The server hears of it with the first statement.
        """
        self._require_no_transaction()
        self._pending = True

    def commit(self) -> None:
        """Commit, and tell the other handles soon afterwards: outside the transaction, and not for each one."""
        if self._pending:
            self._pending = False
            return
        if self._connection.info.transaction_status == TransactionStatus.INERROR:
            self.rollback()
            raise StoreError(self.url, "the transaction had failed and was rolled back", "run the command again")
        try:
            with self._explained():
                self._connection.execute("COMMIT")
        except StoreError:
            self.rollback()
            raise
        self._owed = True
        self._tell()

    def rollback(self) -> None:
        """Drop the transaction's writes; a broken connection has dropped them."""
        pending, self._pending = self._pending, False
        if not pending and not self._connection.closed and self.in_transaction():
            try:
                self._connection.execute("ROLLBACK")
            except psycopg.Error:
                # Whatever state a cut connection is in, the server has dropped its transaction.
                self._connection.close()

    def run(self, text: str) -> list[Row]:
        """Run a statement given as text."""
        return self._fetch(text, None)

    def changed(self) -> bool:
        """Tell whether another handle has told of a commit since the last call; a word may get lost, so look anyway."""
        self._tell()
        if self._connection.closed:
            self._open()
        if not self._listening:
            self.run(f"LISTEN {CHANNEL}")
            self._listening = True
            return True
        own = self._connection.info.backend_pid
        with self._explained():
            return bool({note.pid for note in self._connection.notifies(timeout=0)} - {own})

    def fileno(self) -> int | None:
        """The connection, once it listens."""
        return self._connection.fileno() if self._listening and not self._connection.closed else None

    def tables(self) -> set[str]:
        """Names of the tables of the schema that unqualified names mean."""
        return {row[0] for row in self.run("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")}

    def lock_schema(self, key: int) -> None:
        """Wait until no other process creates the schema."""
        self.run(f"SELECT pg_advisory_xact_lock({key})")

    def close(self) -> None:
        """Close the connection; an open transaction is rolled back."""
        if not self._connection.closed and not self.in_transaction() and self._owed:
            self._told = 0.0
            self._tell()
        self._connection.close()

    # ---------------------------------------------------------------- the connection

    def _open(self) -> None:
        with self._explained():
            # Autocommit: the store says itself where a transaction begins.
            self._connection = psycopg.connect(
                # Whoever waits for an answer of a machine that is gone would wait for hours, by most systems' defaults.
                make_conninfo(self._conninfo, **SILENCE),
                autocommit=True,
                connect_timeout=CONNECT_S,
                application_name="sage",
            )
        self._listening = False
        # Before it is asked anything: an old server knows not all of these settings.
        if self._connection.info.server_version < MINIMUM:
            found = self._connection.info.parameter_status("server_version")
            self._connection.close()
            raise StoreError(self.url, f"PostgreSQL {found} is too old", f"SAGE needs {MINIMUM // 10_000} or later")
        with self._explained():
            # Not as a connection option: the URL may have options of its own, such as a search_path.
            # A process that is stopped inside a transaction would keep its locks for as long as it stays stopped.
            for limit in ("lock_timeout", "idle_in_transaction_session_timeout"):
                self._connection.execute(f"SET {limit} = {LOCK_S * 1000}")
            self._connection.execute(PLANS)

    def _start(self) -> None:
        """Send the begin that is due."""
        if self._pending:
            self._pending = False
            self.run("BEGIN")

    def _fetch(self, text: str, parameters: Parameters | None) -> list[Row]:
        self._start()
        if self._connection.closed:
            # Inside a transaction `closed` cannot be reached: the statement that broke it has raised.
            self._open()
        with self._explained():
            cursor = self._connection.execute(text, parameters, prepare=parameters is not None)
            return cursor.fetchall() if cursor.description else []

    def _tell(self) -> None:
        if self._owed and time.monotonic() - self._told >= QUIET_S and not self._connection.closed:
            self._owed, self._told = False, time.monotonic()
            # What the word is about has been committed; a connection lost since is for the next statement to find.
            with suppress(StoreUnavailable):
                self.run(f"NOTIFY {CHANNEL}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise explain(self.url, error) from error


def _arrays(given: Parameters | Sequence[Parameters]) -> Parameters:
    """Parameters of a statement, which takes rows as one array a column."""
    return given if isinstance(given, Mapping) else {name: [row[name] for row in given] for name in given[0]}


#: SQLSTATE prefix → problem and help.
_EXPLAINED: Sequence[tuple[str, str, str]] = (
    ("28", "the server refused the user or the password", "check [store] url; a password may come from PGPASSWORD"),
    ("3D", "there is no such database", "create it: createdb NAME"),
    ("25006", "read-only", "name the primary server, or a user who may write"),
    ("42501", "this user may not do that", "give the user rights on the schema"),
    ("53100", "disk full", "free some space, then run the command again; finished work is kept"),
    ("23", "refused by a constraint", ""),
    ("22021", "text that the database cannot keep", "remove NUL bytes from it"),
)
#: How a server words that it lets this user in by no means.
_REFUSED = ("password authentication failed", "no password supplied", "no pg_hba.conf entry", "not permitted to log in")
#: SQLSTATE prefixes of what passes: connection lost, shutdown, too many connections, deadlock, lock timeout, idle.
_PASSING = ("08", "57P", "53300", "40P01", "40001", "55P03", "25P03")


def explain(url: str, error: psycopg.Error) -> StoreError:
    """Say what PostgreSQL's error means for the user."""
    state, text = error.sqlstate or "", _first_line(error)
    for prefix, problem, help in _EXPLAINED:
        if state.startswith(prefix):
            return StoreError(url, f"{problem} ({text})", help)
    lost = isinstance(error, psycopg.OperationalError) and not state
    # Refused while connecting, before there is an SQLSTATE to go by.
    if lost and (any(words in text for words in _REFUSED) or ('role "' in text and "does not exist" in text)):
        return StoreError(url, f"{_EXPLAINED[0][1]} ({text})", _EXPLAINED[0][2])
    if lost and 'database "' in text and "does not exist" in text:
        return StoreError(url, f"{_EXPLAINED[1][1]} ({text})", _EXPLAINED[1][2])
    if lost or state.startswith(_PASSING):
        return StoreUnavailable(
            url, f"cannot be reached or is busy ({text})", "see that the server runs, and try again"
        )
    return StoreError(url, text)


def _first_line(error: psycopg.Error) -> str:
    text = str(error).strip()
    return mask(text.splitlines()[0]) if text else type(error).__name__
