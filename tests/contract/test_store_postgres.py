"""The job store on PostgreSQL keeps the contract."""

from __future__ import annotations

from pathlib import Path

from sage_core.platform.store import JobStore
from sage_core.testing.store import JobStoreContract
from tests.postgres import schema_url


class TestPostgres(JobStoreContract):
    def make(self, place: Path) -> JobStore:
        return JobStore.open(schema_url(place))
