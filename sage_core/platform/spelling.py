"""What SQLite and PostgreSQL spell differently, for statements written once in SQLAlchemy Core."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.selectable import NamedFromClause

from sage_core.platform import tables as t
from sage_core.platform.database import Dialect

DIALECTS: tuple[Dialect, ...] = ("sqlite", "postgresql")

#: Marks a column that an insert leaves to the database.
SKIP = object()


def lit(value: str | int) -> sa.ColumnClause[Any]:
    """Write a constant into the text: SQLite uses a partial index only for a literal condition."""
    return sa.literal_column(repr(value))


def p(name: str, type_: Any = None) -> sa.BindParameter[Any]:
    """Name a parameter."""
    return sa.bindparam(name, type_=type_)


class Spelling:
    """What the two databases spell differently."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.now: sa.ColumnClause[int] = sa.literal_column(t.NOW[dialect], sa.BigInteger)

        # SQLite has no booleans, and SQLAlchemy would bind them as parameters.
        self.false: Any = sa.false() if dialect == "postgresql" else lit(0)
        self.true: Any = sa.true() if dialect == "postgresql" else lit(1)

    def unindexed(self, column: Any) -> Any:
        """Compare a column of a job that is looked up by its id.

        PostgreSQL would rather read the index of all live jobs, and of dead rows not yet swept out of it.
        """
        return column if self.dialect == "sqlite" else column + lit("")

    def listed(self, name: str, type_: Any = sa.BigInteger) -> sa.Select[Any]:
        """Select the items of a JSON list parameter."""
        if self.dialect == "sqlite":
            return sa.select(sa.func.json_each(p(name)).table_valued("value").c.value)
        return sa.select(sa.cast(self._items(name).op("#>>")(sa.literal_column("'{}'")), type_))

    def pairs(self, name: str) -> Any:
        """Select two integers from each item of a JSON list of pairs."""
        return sa.select(*self.given(name, sa.BigInteger, sa.BigInteger))

    def given(self, name: str, *types: Any) -> list[Any]:
        """Read the columns of a JSON list of lists, as a table to join with."""
        if self.dialect == "sqlite":
            value = sa.func.json_each(p(name)).table_valued("value", name=name).c.value
            return [sa.func.json_extract(value, lit(f"$[{i}]")) for i in range(len(types))]
        value = self._items(name)
        return [sa.cast(value.op("->>")(lit(i)), type_) for i, type_ in enumerate(types)]

    def _items(self, name: str) -> Any:
        # PostgreSQL expects 100 rows of a JSON list and scans whole tables for so many; of an array it expects 10.
        each = sa.func.jsonb_array_elements(sa.cast(p(name, sa.Text), postgresql.JSONB)).table_valued("value")
        array = sa.func.array(sa.select(each.c.value).scalar_subquery())
        rows = sa.func.unnest(array).table_valued(sa.column("value", postgresql.JSONB), name=name)
        return rows.render_derived(name=name).c.value

    def spread(self, **types: Any) -> dict[str, Any]:
        """Name the values of rows that `Database.spread` hands over: a row a statement, or all rows in one."""
        if self.dialect == "sqlite":
            return {name: p(name) for name in types}
        arrays = [p(name, postgresql.ARRAY(type_)) for name, type_ in types.items()]
        columns = [sa.column(name, type_) for name, type_ in types.items()]
        rows = sa.func.unnest(*arrays).table_valued(*columns, name="spread").render_derived(name="spread")
        return {name: rows.c[name] for name in types}

    def first(self, statement: sa.Select[Any]) -> sa.Select[Any]:
        """Return the first `:limit` rows; SQLite's compiler would otherwise bind an offset of its own."""
        limited = statement.limit(p("limit", sa.Integer))
        return limited.offset(lit(0)) if self.dialect == "sqlite" else limited

    def insert(self, table: sa.Table, **special: Any) -> Any:
        """Insert a row of parameters named as columns, save for the `special` ones."""
        values = {c.name: special.get(c.name, p(c.name, c.type)) for c in table.c if special.get(c.name) is not SKIP}
        return self.insert_from(table).values(values)

    def insert_from(self, table: sa.Table) -> Any:
        """Start an insert that knows what to do about conflicts."""
        return sqlite.insert(table) if self.dialect == "sqlite" else postgresql.insert(table)


def holds(claim: NamedFromClause) -> Any:
    """Whether the job that a row names still runs under the fence it names: then the row holds what it stands for."""
    holder = t.job.alias("holder")
    # Spelled out, because inside ON CONFLICT the row's table would otherwise be selected from once more.
    job_id, fence = (sa.literal_column(f"{claim.name}.{name}", sa.BigInteger) for name in ("job_id", "fence"))
    runs = holder.c.state + lit("") == lit("running")
    return sa.exists().where(holder.c.id == job_id, holder.c.fence == fence, runs)
