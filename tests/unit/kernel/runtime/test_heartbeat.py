from __future__ import annotations

import threading

from sage_core.kernel.runtime.heartbeat import Heartbeat
from sage_core.platform.records import NewJob, NewRun
from sage_core.testing.flows import Flows


def test_leases_are_prolonged_while_the_body_runs_and_the_thread_ends_with_it(flows: Flows) -> None:
    run = NewRun(id="r", workflow="w", graph=b"", plan=b"", params=b"", graph_hash="")
    with flows.open_store() as store:
        with store.transaction() as tx:
            tx.insert_run(run)
            tx.insert_jobs([NewJob(run_id="r", stage="s", part=0)])
        (job,) = store.claim("me", run_id="r", lease_ms=60)
        before = store.jobs("r")[0].lease_until
        assert before is not None
        with Heartbeat(flows.project.url, "me", lease=0.06):
            while (until := store.jobs("r")[0].lease_until) == before:
                store.changed()
        assert until is not None
        assert until > before
        assert "sage-heartbeat" not in {thread.name for thread in threading.enumerate()}
        assert job.fence == store.jobs("r")[0].fence
