"""How a run enters the store without a driver: where it waits, how urgent it is, and whose key it has."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sage_core.common.errors import UsageError
from sage_core.kernel.runtime.prepared import decode_prepared
from sage_core.kernel.runtime.submit import Order, Place
from sage_core.testing.flows import Flows
from tests.unit.kernel.runtime import drive_operators
from tests.unit.kernel.runtime.queued import enqueue, numbers


@pytest.fixture
def flows(tmp_path: Path) -> Flows:
    return Flows(tmp_path, {"operators": drive_operators})


def test_a_run_waits_in_its_queue_and_has_no_driver(flows: Flows) -> None:
    run_id = enqueue(flows, numbers(), Order(queue="night", priority=4, deployment="nightly"))
    with flows.project.open_store() as store:
        run = store.run(run_id)
        assert (run.status, run.supervisor, run.queue, run.priority) == ("queued", "", "night", 4)
        assert run.deployment == "nightly"
        assert {job.queue for job in store.jobs(run_id)} == {"night"}
        assert store.claim("w", lease_ms=1000) == []
        assert [job.run_id for job in store.claim("w", lease_ms=1000, queue="night")] == [run_id]


def test_what_is_kept_of_a_run_is_what_it_takes_to_run_it_elsewhere(flows: Flows) -> None:
    run_id = enqueue(flows, numbers())
    with flows.project.open_store() as store:
        run = store.run(run_id)
    place = msgspec.msgpack.decode(run.options, type=Place)
    assert (place.cwd, place.project) == (str(Path.cwd()), str(flows.project.folder))
    assert decode_prepared(run.plan).encode() == run.plan
    assert run.graph_hash
    assert run.pins


def test_a_delayed_run_is_claimed_later(flows: Flows) -> None:
    run_id = enqueue(flows, numbers(), Order(delay_ms=600_000))
    with flows.project.open_store() as store:
        assert store.claim("w", lease_ms=1000) == []
        assert all(job.run_at > store.now() for job in store.jobs(run_id))


def test_a_key_that_is_taken_keeps_refuses_or_replaces(flows: Flows) -> None:
    first = enqueue(flows, numbers(), Order(unique_key="k"))
    assert enqueue(flows, numbers(), Order(unique_key="k", on_conflict="ignore")) == first
    with pytest.raises(UsageError, match=rf"Run {first} \(queued\) has the unique key 'k' already"):
        enqueue(flows, numbers(), Order(unique_key="k"))
    second = enqueue(flows, numbers(), Order(unique_key="k", on_conflict="replace"))
    with flows.project.open_store() as store:
        assert [(run.id, run.status) for run in store.runs()] == [(second, "queued"), (first, "cancelled")]
