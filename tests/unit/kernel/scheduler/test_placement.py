"""Jobs meant for nodes: who is chosen, what it costs where there is no choice, and how a node loses them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from sage_core import Candidate, Needs, Node, Work
from sage_core.builtins import default_host
from sage_core.common.config import ClusterConfig, Config, SelectorConfig
from sage_core.common.errors import UnknownName
from sage_core.kernel.scheduler.ledger import needs_text
from sage_core.kernel.scheduler.placement import KNOWN, Placement, Waiting, registered
from sage_core.platform.database import Parameters, Row
from sage_core.platform.records import JobRow, NewJob, NewRun
from sage_core.platform.store import JobStore
from tests.postgres import schema_url

LONG = 600_000
NOTHING, PLAIN = Needs(), Config()
SMALL = Node(name="small", cpu=4, memory=8)
LARGE = Node(name="large", cpu=4, memory=8, gpu=2, labels=("gpu",), models=("big",))


class Last:
    def pick(self, work: Work, scores: Mapping[str, float]) -> str:
        return max(scores)


class Broken:
    def score(self, work: Work, candidates: Sequence[Candidate]) -> Mapping[str, float]:
        raise ZeroDivisionError


class Counting(JobStore):
    """A store that counts its statements by name."""

    counted: Counter[str]

    def count(self) -> Counter[str]:
        """Count from here on."""
        self.counted = Counter()
        inner = self._db

        class Counted(type(inner)):  # type: ignore[misc] # the database's class is known at run time only
            def fetch(database, name: str, parameters: Parameters) -> list[Row]:
                self.counted[name] += 1
                return inner.fetch(name, parameters)

            def write_each(database, name: str, rows: Sequence[Parameters]) -> int:
                self.counted[name] += 1
                return inner.write_each(name, rows)

            def __init__(database) -> None:
                database.__dict__ = inner.__dict__

        self._db = Counted()
        return self.counted


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'sage.db'}" if request.param == "sqlite" else schema_url(tmp_path)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Counting]:
    with Counting.open(schema_url(tmp_path)) as store:
        yield store


def serve(store: JobStore, *nodes: Node, queue: str = "default") -> None:
    """Let supervisors speak for nodes and serve a queue."""
    with store.transaction() as tx:
        for node in nodes:
            body = msgspec.json.encode(node).decode()
            tx.announce_node(name=node.name, supervisor=node.name, host="h", body=body, node_ms=tx.now(), silence_ms=1)
            tx.take_spawn(node=node.name, queue=queue, holder=node.name, lease_ms=LONG)


def submit(store: JobStore, count: int, needs: Needs = NOTHING) -> list[int]:
    with store.transaction() as tx:
        run_id = f"run{len(tx.runs())}"
        tx.insert_run(NewRun(id=run_id, workflow="flow", status="running"))
        return tx.insert_jobs([NewJob(run_id=run_id, stage="s", part=n, needs=needs_text(needs)) for n in range(count)])


def waiting(ids: Sequence[int], needs: Needs = NOTHING, models: tuple[str, ...] = ()) -> list[Waiting]:
    work = Work(id="s/0", lane="default", kind="job", arrival=0)
    return [Waiting(id=id, work=work, needs=needs, models=models) for id in ids]


def placed(store: JobStore) -> Mapping[int, str | None]:
    return {job.id: job.node for run in store.runs() for job in store.jobs(run.id)}


def row(store: JobStore, id: int) -> JobRow:
    return next(job for run in store.runs() for job in store.jobs(run.id) if job.id == id)


def placement(config: Config = PLAIN, **more: str) -> Placement:
    selectors = default_host({}).selectors
    selectors.add("test", more)
    return Placement(config, selectors, clock=lambda: 0.0)


# ------------------------------------------------------------ who is chosen


def test_jobs_spread_over_the_nodes_that_serve_their_queue(shared: JobStore) -> None:
    serve(shared, SMALL, LARGE)
    serve(shared, Node(name="other", cpu=64), queue="nightly")
    ids = submit(shared, 6)
    with shared.transaction() as tx:
        placement().place(tx, "default", waiting(ids), here="small")
    assert Counter(placed(shared).values()) == {"small": 3, "large": 3}
    now = shared.now()
    until = row(shared, ids[0]).node_until
    assert until is not None
    assert now < until <= now + 2_000


def test_what_one_node_alone_can_run_goes_there_and_what_none_has_room_for_goes_anywhere(shared: JobStore) -> None:
    serve(shared, SMALL, LARGE)
    gpu = Needs(gpu=1)
    ids = submit(shared, 3, gpu)
    with shared.transaction() as tx:
        placement().place(tx, "default", waiting(ids, gpu), here="small")
    assert placed(shared) == {ids[0]: "large", ids[1]: "large", ids[2]: None}


def test_running_jobs_count(shared: JobStore) -> None:
    serve(shared, SMALL, LARGE)
    busy, ids = submit(shared, 2), submit(shared, 2)
    shared.claim("w", lease_ms=LONG, limit=2, node="small", run_id="run0")
    with shared.transaction() as tx:
        placement().place(tx, "default", waiting(ids), here="small")
    assert placed(shared) == {**dict.fromkeys(busy, "small"), **dict.fromkeys(ids, "large")}


@pytest.mark.parametrize(("models", "here", "chosen"), [((), "small", "small"), (("big",), "", "large")])
def test_of_equal_nodes_the_one_with_the_model_or_the_inputs(
    shared: JobStore, models: tuple[str, ...], here: str, chosen: str
) -> None:
    serve(shared, SMALL, LARGE)
    ids = submit(shared, 1)
    with shared.transaction() as tx:
        placement().place(tx, "default", waiting(ids, models=models), here=here)
    assert placed(shared) == {ids[0]: chosen}


def test_a_selector_of_a_third_party_decides(shared: JobStore) -> None:
    serve(shared, SMALL, LARGE)
    config = Config(
        cluster=ClusterConfig(selector="mine"),
        selectors={"mine": SelectorConfig(filters=("capability",), picker="last")},
    )
    ids = submit(shared, 4)
    with shared.transaction() as tx:
        placement(config, last=f"{__name__}:Last").place(tx, "default", waiting(ids), here="large")
    assert set(placed(shared).values()) == {"small"}


def test_a_selector_that_breaks_leaves_jobs_to_whoever_comes(
    shared: JobStore, caplog: pytest.LogCaptureFixture
) -> None:
    serve(shared, SMALL, LARGE)
    ids = submit(shared, 2)
    with shared.transaction() as tx:
        placement(Config(cluster=ClusterConfig(selector="broken")), broken=f"{__name__}:Broken").place(
            tx, "default", waiting(ids), here=""
        )
    assert placed(shared) == dict.fromkeys(ids)
    assert "ZeroDivisionError" in caplog.text


def test_a_selector_that_is_not_there_is_named_before_anything_is_placed() -> None:
    with pytest.raises(UnknownName, match=r"No node selector is named 'speard'\. Did you mean 'spread'"):
        placement(Config(cluster=ClusterConfig(selector="speard")))


# ------------------------------------------------------------ what it costs


def test_one_node_costs_a_statement_a_second_and_no_node_of_its_own_none(shared: Counting, tmp_path: Path) -> None:
    serve(shared, SMALL)
    ids = submit(shared, 50)
    moment = 0.0
    placing = Placement(Config(), default_host({}).selectors, clock=lambda: moment)
    counted = shared.count()
    for id in ids:
        with shared.transaction() as tx:
            placing.place(tx, "default", waiting([id]), here="small")
            placing.place(tx, "run:r", waiting([id]), here="small")
    assert counted == {"nodes_serving": 1}
    moment = KNOWN
    with shared.transaction() as tx:
        placing.place(tx, "default", waiting(ids[:1]), here="small")
    assert counted == {"nodes_serving": 2}
    assert placed(shared) == dict.fromkeys(ids)
    with Counting.open(f"sqlite:///{tmp_path / 'sage.db'}") as alone:
        serve(alone, SMALL, LARGE)
        ids = submit(alone, 2)
        counted = alone.count()
        with alone.transaction() as tx:
            placing.place(tx, "default", waiting(ids), here="small")
        assert counted == {}


# ------------------------------------------------------------ how a node loses a job


def test_a_placed_job_is_left_to_its_node_and_to_all_when_that_dawdles(url: str) -> None:
    with JobStore.open(url) as store:
        first, second = submit(store, 2)
        with store.transaction() as tx:
            tx.place_jobs([(first, "here")], patience_ms=LONG)
            tx.place_jobs([(second, "dead")], patience_ms=0)
        # The dead node's patience is over; the living one's job is its own.
        assert [job.id for job in store.claim("w", lease_ms=LONG, limit=9, node="there")] == [second]
        assert store.claim("w", lease_ms=LONG, limit=9, node="there") == []
        assert [job.id for job in store.claim("v", lease_ms=LONG, limit=9, node="here")] == [first]


def test_a_job_that_ran_on_a_node_that_died_is_everybodys(url: str) -> None:
    with JobStore.open(url) as store:
        [id] = submit(store, 1)
        with store.transaction() as tx:
            tx.place_jobs([(id, "dead")], patience_ms=LONG)
        assert [job.id for job in store.claim("w", lease_ms=LONG, node="dead")] == [id]
        store.release_worker("w", "gone")
        [again] = store.claim("v", lease_ms=LONG, node="alive")
        assert (again.id, row(store, id).node) == (id, "alive")
        # Also when it failed there for good and its run is resumed elsewhere.
        store.fail(id, again.fence, "no", retry_in_ms=None)
        store.finish_run("run0", "failed")
        store.resume_run("run0")
        assert [job.id for job in store.claim("u", lease_ms=LONG, node="third")] == [id]


def test_a_job_that_is_claimed_stays_where_it_is_and_a_delayed_one_has_its_patience_ahead(url: str) -> None:
    with JobStore.open(url) as store:
        [id] = submit(store, 1)
        store.claim("w", lease_ms=LONG, node="here")
        with store.transaction() as tx:
            tx.insert_run(NewRun(id="late", workflow="flow", status="running"))
            [late] = tx.insert_jobs([NewJob(run_id="late", stage="s", delay_ms=LONG)])
            tx.place_jobs([(id, "there"), (late, "there")], patience_ms=5)
        assert row(store, id).node == "here"
        assert row(store, late).node_until == row(store, late).run_at + 5


# ------------------------------------------------------------ who is known


def test_sleeping_nodes_and_this_machine_are_registered(url: str) -> None:
    with JobStore.open(url) as store:
        serve(store, LARGE)
        with store.transaction() as tx:
            tx.stop_node(name="large", supervisor="large")
        found = registered(store, Config(cluster=ClusterConfig(node="me", cpu=3, gpu=0)))
        assert [(node.name, node.cpu, node.gpu) for node in found] == [("me", 3, 0), ("large", 4, 2)]
        assert store.nodes_serving("default") == []


def test_two_supervisors_of_one_name_speak_one_after_the_other(url: str) -> None:
    with JobStore.open(url) as store, store.transaction() as tx:

        def announce(supervisor: str, silence_ms: int = LONG) -> bool:
            return tx.announce_node(
                name="n", supervisor=supervisor, host=supervisor, body="{}", node_ms=tx.now(), silence_ms=silence_ms
            )

        assert [announce("a"), announce("b"), announce("a")] == [True, False, True]
        assert not tx.beat_node(name="n", supervisor="b", body="{}", node_ms=0)
        # Silent for longer than is borne.
        assert announce("b", silence_ms=-1)
        assert not tx.beat_node(name="n", supervisor="a", body="{}", node_ms=0)
