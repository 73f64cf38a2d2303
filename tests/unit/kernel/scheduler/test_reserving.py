"""Jobs that reserve from one node, on both databases: what its workers hold together is never more than it has."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sage_core import Needs, Node
from sage_core.kernel.scheduler.ledger import fits, needs_text, with_jobs
from sage_core.platform.records import NewJob, NewRun
from sage_core.platform.store import JobStore
from tests.postgres import schema_url

#: A node of nothing but four cores and two GPUs.
NODE = Node(name="here", cpu=4, memory=8, gpu=2)
NEEDS = st.builds(
    Needs, cpu=st.sampled_from((0.0, 0.5, 1.5, 4.0)), memory=st.integers(0, 5), gpu=st.sampled_from((0, 0, 1, 2))
)
LEASE = 600_000


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    place: Path = tmp_path_factory.mktemp(request.param)
    return f"sqlite:///{place / 'sage.db'}" if request.param == "sqlite" else schema_url(place)


def over(store: JobStore, node: Node) -> str:
    """What is reserved beyond what there is, as one statement sees it."""
    held = with_jobs(node, store.nodes_running().get(node.name, {}))
    fine = held.used_cpu <= node.cpu + 1e-6 and held.used_memory <= node.memory and held.used_gpu <= node.gpu
    return "" if fine else f"{held}"


def work(url: str, name: str, run_id: str, order: list[int], seen: list[str]) -> None:
    """Claim until nothing is left: hold as many as fit, and end them in the given order."""
    held = []
    with JobStore.open(url) as store:
        for turn in order:
            jobs = store.claim(name, lease_ms=LEASE, run_id=run_id, limit=3, node=NODE.name, fits=fits(NODE))
            seen.append(over(store, NODE))
            held += jobs
            if held and turn % 2:
                job = held.pop(turn % len(held))
                with store.transaction() as tx:
                    tx.finish(job.id, job.fence, result_key=None, session=1)
        store.give_back([(job.id, job.fence) for job in held])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(NEEDS, min_size=2, max_size=12),
    orders=st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=10), min_size=2, max_size=3),
)
def test_workers_of_one_node_never_reserve_more_than_it_has(
    url: str, asked: list[Needs], orders: list[list[int]]
) -> None:
    with JobStore.open(url) as store:
        run_id = f"run{len(store.runs(10_000))}"
        with store.transaction() as tx:
            tx.insert_run(NewRun(id=run_id, workflow="flow", status="running"))
            tx.insert_jobs(
                [NewJob(run_id=run_id, stage="s", part=n, needs=needs_text(needs)) for n, needs in enumerate(asked)]
            )
        seen: list[str] = []
        threads = [
            threading.Thread(target=work, args=(url, f"{run_id}-{n}", run_id, order, seen))
            for n, order in enumerate(orders)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == sum(map(len, orders)), "a worker broke"
        assert [found for found in seen if found] == []
        # Nothing is held any more, so what is left fits again, one after another.
        while left := store.claim("last", lease_ms=LEASE, run_id=run_id, node=NODE.name, fits=fits(NODE)):
            with store.transaction() as tx:
                tx.finish(left[0].id, left[0].fence, result_key=None, session=1)
        assert store.counts(run_id) == {"done": len(asked)}


def test_a_job_that_needs_more_than_is_left_waits_for_what_runs(url: str) -> None:
    whole, half = needs_text(Needs(gpu=2)), needs_text(Needs(gpu=1))
    with JobStore.open(url) as store:
        with store.transaction() as tx:
            tx.insert_run(NewRun(id="wait", workflow="flow", status="running"))
            tx.insert_jobs([NewJob(run_id="wait", stage=name, needs=name) for name in (half, whole)])

        def claim(limit: int = 4) -> list[str]:
            jobs = store.claim("w", lease_ms=LEASE, run_id="wait", limit=limit, node=NODE.name, fits=fits(NODE))
            return [job.stage for job in jobs]

        assert (claim(), claim()) == ([half], [])
        assert store.nodes_running()[NODE.name] == {half: 1}
        store.release_worker("w", "gone", refund=True)
        assert store.nodes_running().get(NODE.name, {}) == {}
        # The best rank goes first again; a worker without a ledger leaves both to others.
        assert store.claim("w", lease_ms=LEASE, run_id="wait", limit=4) == []
        store.finish_run("wait", "cancelled")
