"""Turn `queries` and `tables` into the checked-in text the store runs: ``python -m sage_core.platform.compile``.

SQLAlchemy describes the statements; the hot path must not import it, so their text is compiled once per dialect.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from sage_core.platform.database import Dialect
from sage_core.platform.queries import queries
from sage_core.platform.spelling import DIALECTS
from sage_core.platform.tables import NOW, VIEWS, metadata

HERE = Path(__file__).parent
#: Rows every store starts with; `product` tells our database from a foreign one.
SETTINGS = {"product": "sage"}


def dialect_of(name: Dialect) -> Any:
    """The SQLAlchemy dialect whose parameters are named as the driver wants them."""
    return sqlite.dialect(paramstyle="named") if name == "sqlite" else postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]


def one_line(text: str) -> str:
    """Collapse the layout SQLAlchemy gives a statement."""
    return " ".join(text.split())


def statements(name: Dialect) -> dict[str, str]:
    """Compile every statement; one that hides a value in a parameter is a mistake in `queries`."""
    texts = {}
    for key, statement in queries(name).items():
        compiled = statement.compile(dialect=dialect_of(name))
        hidden = [parameter for parameter, value in compiled.params.items() if value is not None]
        if hidden:
            raise ValueError(f"{key}: {hidden} are values; write them with lit()")
        texts[key] = one_line(str(compiled))
    return texts


def schema(name: Dialect) -> str:
    """A schema as a script: one statement per paragraph, Alembic's stamp left to the store."""
    engine = dialect_of(name)
    parts: list[str] = []
    for table in metadata.sorted_tables:
        parts.append(str(CreateTable(table).compile(dialect=engine)))
        parts += [str(CreateIndex(index).compile(dialect=engine)) for index in sorted(table.indexes, key=str)]
    parts += [f"CREATE VIEW {view} AS {text.format(now=NOW[name])}" for view, text in VIEWS.items()]
    parts += [f"INSERT INTO setting (key, value) VALUES ('{key}', '{value}')" for key, value in SETTINGS.items()]
    lines = (line.rstrip() for part in parts for line in [*part.strip().splitlines(), ";", ""])
    return "\n".join(lines).replace("\n;", ";")


def outputs() -> dict[Path, str]:
    """Every generated file and what it should hold."""
    files = {
        HERE / f"statements_{name}.json": json.dumps(statements(name), indent=1, sort_keys=True) + "\n"
        for name in DIALECTS
    }
    return {**files, **{HERE / f"schema_{name}.sql": schema(name) for name in DIALECTS}}


def main(arguments: list[str]) -> int:
    """Write the generated files, or with ``--check`` say which are stale."""
    stale = [path for path, text in outputs().items() if not path.exists() or path.read_text() != text]
    if "--check" not in arguments:
        for path in stale:
            path.write_text(outputs()[path])
    for path in stale:
        sys.stdout.write(f"{'stale' if '--check' in arguments else 'written'}: {path.name}\n")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
