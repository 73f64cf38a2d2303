"""The job store on SQLite keeps the contract."""

from __future__ import annotations

from pathlib import Path

from sage_core.platform.store import JobStore
from sage_core.testing.store import JobStoreContract


class TestSqlite(JobStoreContract):
    def make(self, place: Path) -> JobStore:
        return JobStore.open(f"sqlite:///{place}/sage.db")
