"""A PostgreSQL server that goes away and comes back: what a handle says meanwhile, and that it goes on afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_core.common.errors import StoreUnavailable
from sage_core.common.records import Job
from sage_core.platform.store import JobStore
from sage_core.testing.store_suite import LONG, finish, submit
from tests.chaos.server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def _stop_inside(server: Server, store: JobStore, job: Job) -> None:
    with store.transaction() as tx:
        tx.put_result("key", b"body", run_id="run")
        tx.finish(job.id, job.fence, result_key="key", session=1)
        server.stop("immediate")
        tx.release([job.id])


def test_a_server_that_went_away_is_unavailable_and_nothing_was_written(server: Server, tmp_path: Path) -> None:
    url = server.schema_url(tmp_path)
    with JobStore.open(url) as store:
        [id] = submit(store)
        [job] = store.claim("w", lease_ms=LONG)
        with pytest.raises(StoreUnavailable):
            _stop_inside(server, store, job)
        for ask in (store.runs, store.now, lambda: store.claim("w", lease_ms=LONG), lambda: JobStore.open(url)):
            with pytest.raises(StoreUnavailable, match="cannot be reached or is busy"):
                ask()
        server.start()
        assert store.results(["key"]) == {}
        assert store.renew([(id, job.fence)], LONG) == {id}
        finish(store, job)
        assert store.counts("run") == {"done": 1}
        assert [attempt.outcome for attempt in store.attempts("run")] == ["done"]
