"""The judge is judged first: it must find what is wrong with a corrupted history, and with a store that is a mutant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sage_core.common.records import Job
from sage_core.platform.store import JobStore
from tests.chaos.history import History, Line, Verdict, check, result_key
from tests.chaos.mutants import STORES, WORKS
from tests.chaos.work import OVER, Work, submit


@pytest.fixture
def store(url: str) -> Any:
    with JobStore.open(url) as store:
        yield store


def drained(store: JobStore, history: History, run: str = "run", parts: int = 3) -> dict[str, int]:
    submit(store, run, parts)
    Work(store, history, "calm").drain(run)
    return {run: parts}


@pytest.mark.parametrize("parts", [0, 1, 5])
def test_a_calm_run_is_clean_and_an_empty_expansion_releases_its_collect(
    store: JobStore, history: History, parts: int
) -> None:
    plan = drained(store, history, parts=parts)
    assert check(history.lines(), store, plan) == ([], [])
    assert store.run("run").outputs == str(parts).encode()
    assert len(history.lines()) == 3 * (parts + 2)


def corrupted(lines: list[Line], how: str) -> list[Line]:
    first = next(line for line in lines if line.stage == "part" and line.event == "accepted")
    match how:
        case "accepted twice":
            return [*lines, first._replace(fence=first.fence + 1)]
        case "accepted under another fence":
            return [line._replace(fence=9) if line is first else line for line in lines]
        case "claimed twice":
            return [*lines, first._replace(event="claimed", worker="other")]
        case "never ran":
            return [line for line in lines if (line.job, line.event) != (first.job, "ran")]
        case "ran by another":
            return [
                line._replace(worker="x") if (line.job, line.event) == (first.job, "ran") else line for line in lines
            ]
        case "collected early":
            return [line._replace(at=0) if line.stage == "collect" else line for line in lines]
    raise ValueError(how)


@pytest.mark.parametrize(
    ("how", "where", "said"),
    [
        ("accepted twice", "duplicated", "was accepted under the fences [1, 2]"),
        ("accepted under another fence", "duplicated", "has fence 1, but [9] was accepted"),
        ("claimed twice", "duplicated", "was claimed twice under one fence: [1, 1]"),
        ("never ran", "lost", "is done by calm under fence 1, which never ran it"),
        ("ran by another", "lost", "is done by calm under fence 1, which never ran it"),
        ("collected early", "lost", "ran before what it collects"),
    ],
)
def test_a_corrupted_history_is_found(store: JobStore, history: History, how: str, where: str, said: str) -> None:
    plan = drained(store, history)
    verdict = check(corrupted(history.lines(), how), store, plan)
    assert any(said in text for text in getattr(verdict, where)), verdict
    assert not getattr(verdict, "lost" if where == "duplicated" else "duplicated")


def test_a_store_that_lost_or_doubled_work_is_found(store: JobStore, history: History) -> None:
    plan = drained(store, history)
    assert check(history.lines(), store, {"run": 4}) == (
        ["run run has no job part/3", "run run is succeeded with b'3' of 4 parts: "],
        [],
    )
    assert check(history.lines(), store, {"run": 2}).duplicated == ["run run has part/2 too often"]
    submit(store, "unfinished", 1)
    lost = check(history.lines(), store, {**plan, "unfinished": 1}).lost
    assert [text.rpartition(") ")[2] for text in lost[:1]] == ["run unfinished has no job part/0"]
    assert "is ready after fence 0" in lost[2]
    assert "is blocked after fence 0" in lost[3]
    job = store.jobs("run")[0]
    with store.transaction() as tx:
        tx.put_result(result_key(job.id, 0), b"", run_id="run")
    assert "has results of the fences [0, 1]" in check(history.lines(), store, plan).duplicated[0]


def zombie(store: JobStore, history: History, *, work: type[Work] = Work) -> Verdict:
    """A worker loses its lease, another does the job, then the first comes back."""
    submit(store, "run", 2)
    late, swift = work(store, history, "late", lease_ms=OVER), work(store, history, "swift", lease_ms=OVER)
    held: list[Job] = late.claim()
    while held and held[0].stage != "part":
        late.attempt(held[0])
        held = late.claim()
    for _ in range(20):
        if store.run("run").status != "running":
            break
        swift.step()
    for job in held:
        late.attempt(job)
    return check(history.lines(), store, {"run": 2})


def test_a_zombie_leaves_a_clean_history(store: JobStore, history: History) -> None:
    assert zombie(store, history) == ([], [])
    assert [line.worker for line in history.lines() if line.event == "refused"] == ["late"]


def test_a_zombie_among_others_of_a_batch_is_left_out(store: JobStore, history: History) -> None:
    submit(store, "run", 3)
    late, swift = (Work(store, history, name) for name in ("late", "swift"))
    assert swift.step()
    held = late.claim(3)
    store.give_back([(held[0].id, held[0].fence)])
    [taken] = swift.claim()
    assert swift.attempt(taken)
    late.batch(held)
    swift.drain("run")
    assert check(history.lines(), store, {"run": 3}) == ([], [])
    told = [(line.event, line.job == taken.id) for line in history.lines() if line.worker == "late"][6:]
    assert sorted(told) == [("accepted", False), ("accepted", False), ("refused", True)]


def test_a_worker_that_never_heard_of_its_commit_leaves_a_clean_history(store: JobStore, history: History) -> None:
    submit(store, "run", 2)
    deaf, swift = (Work(store, history, name) for name in ("deaf", "swift"))
    assert deaf.step()
    [part] = deaf.claim()
    deaf.complete(part)
    swift.drain("run")
    # It does the job again, under its old fence and after everything is over, and is refused.
    assert not deaf.attempt(part)
    assert check(history.lines(), store, {"run": 2}) == ([], [])


@pytest.mark.parametrize("name", [name for name in STORES if name != "store"])
def test_a_mutant_store_is_found(url: str, history: History, name: str) -> None:
    with STORES[name].open(url) as store:
        verdict = zombie(store, history)
    assert verdict.lost or verdict.duplicated
    if name == "without its fence":
        assert "was accepted under the fences [2, 1]" in str(verdict.duplicated)


def test_a_result_outside_of_the_fence_is_found(store: JobStore, history: History) -> None:
    verdict = zombie(store, history, work=WORKS["publishes beforehand"])
    assert "results of the fences [1, 2]" in str(verdict.duplicated)


def test_lines_of_processes_do_not_mix(tmp_path: Path) -> None:
    one, other = History(tmp_path / "h"), History(tmp_path / "h")
    one.say("unavailable", "one")
    other.say("unavailable", "other")
    one.say(
        "ran",
        "one",
        Job(
            id=7, run_id="r", stage="part", part=2, state="running", fence=3, attempt=1, max_attempts=3, start=0, stop=0
        ),
    )
    assert [(line.event, line.worker, line.job) for line in other.lines()] == [
        ("unavailable", "one", 0),
        ("unavailable", "other", 0),
        ("ran", "one", 7),
    ]
    one.close()
    other.close()
