"""Alembic's environment: SAGE runs migrations on a connection it already holds (`sage_core.platform.migrate`)."""

from __future__ import annotations

from alembic import context

from sage_core.platform.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("run migrations with: python -m sage_core.platform.migrate PATH")
# SQLite alters a table by copying it, which is what a batch does.
context.configure(connection=connection, target_metadata=metadata, render_as_batch=connection.dialect.name == "sqlite")
with context.begin_transaction():
    context.run_migrations()
