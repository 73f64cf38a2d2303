"""SIGKILL before, between and after the statements of every verb; another process then ends what was begun."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.history import History, Verdict, check
from tests.chaos.ledger import Ledger
from tests.chaos.mutants import STORES
from tests.chaos.processes import Nest
from tests.chaos.work import LONG, OVER, Work, submit

PARTS = 3
#: Verb → what the victim does, which stages are done before, and how few statements it may have at least. Should the
#: store learn to need fewer, the number here goes down with it; it is there to notice a count that stopped counting.
VERBS: dict[str, tuple[str, int, int]] = {
    "claim": ("claim", 1, 3),
    "claim after a loss": ("claim", 1, 6),
    "renew": ("renew", 1, 3),
    "expand": ("complete", 0, 12),
    "complete a part": ("complete", 1, 5),
    "complete the last part": ("complete", PARTS, 5),
    "complete the collect": ("complete", 1 + PARTS, 7),
    "complete a batch": ("batch", 1, 5),
    "fail": ("fail", 1, 4),
    "give back": ("give back", 1, 3),
    "empty expansion": ("complete", 0, 7),
}


class Trials:
    """Runs one verb after another in victims, each over a run and a queue of its own, all in one store."""

    def __init__(self, url: str, folder: Path, history: History, nest: Nest, *, store: str = "store") -> None:
        self.url = url
        self.store = STORES[store].open(url)
        self.history = history
        self.plan: dict[str, int] = {}
        self.times: list[float] = []
        self._nest = nest
        self._fixed = {"url": url, "history": str(folder / "history"), "store": store}

    def prepare(self, run: str, done: int, *, empty: bool = False) -> None:
        """Submit a run and do its first `done` jobs."""
        self.plan[run] = 0 if empty else PARTS
        submit(self.store, run, self.plan[run], queue=run, slots=2)
        work = Work(self.store, self.history, "first", queue=run, lease_ms=OVER)
        for _ in range(done):
            assert work.step()

    def victim(self, do: str, run: str, **fields: Any) -> dict[str, Any]:
        """Let a victim begin something; the answer tells whether it lived to end it."""
        return self._nest.do(do, run=run, queue=run, worker=f"victim-{run}", **{**self._fixed, **fields})

    def recover(self, run: str, *, noticed: bool) -> None:
        """Let another process end the run, once somebody noticed the death or by the end of the lease."""
        since = time.monotonic()
        if noticed:
            self.store.release_worker(f"victim-{run}", "killed")
        ended = self._nest.do("drain", run=run, queue=run, worker=f"heir-{run}", **self._fixed)
        assert ended == {"code": 0}
        self.times.append(time.monotonic() - since)

    def verdict(self) -> Verdict:
        return check(self.history.lines(), self.store, self.plan)


@pytest.fixture
def trials(url: str, tmp_path: Path, history: History, nest: Nest) -> Iterator[Trials]:
    trials = Trials(url, tmp_path, history, nest)
    yield trials
    trials.store.close()


def attempt(trials: Trials, verb: str, run: str, at: int, **fields: Any) -> dict[str, Any]:
    """Let a victim begin the verb on a run prepared for it, and die before statement `at`; 0 lets it live."""
    do, done, _ = VERBS[verb]
    trials.prepare(run, done, empty=verb.startswith("empty"))
    if verb == "claim after a loss":
        # Somebody's lost lease to take back, and slots to win.
        assert Work(trials.store, trials.history, "lost", queue=run, lease_ms=OVER).claim()
    return trials.victim(do, run, at=at, limit=PARTS if do in ("claim", "batch") else 1, **fields)


def kill_everywhere(trials: Trials, verb: str, *, work: str = "work") -> int:
    """Kill a victim at each boundary of a verb, and return how many there are."""
    name = verb.replace(" ", "-")
    alive = attempt(trials, verb, f"{name}-0", 0, lease_ms=OVER, work=work)
    assert alive["code"] == 0, alive
    trials.recover(f"{name}-0", noticed=True)
    if trials.url.startswith("sqlite"):
        assert alive["counted"] == alive["traced"], "every statement that SQLite sees is a boundary"
    # The last one lies behind the last statement: all is recorded, and nobody was told.
    for at in range(1, alive["counted"] + 2):
        noticed = at % 2 == 0
        answer = attempt(trials, verb, f"{name}-{at}", at, lease_ms=LONG if noticed else OVER, work=work)
        assert answer["code"] == -signal.SIGKILL, answer
        trials.recover(f"{name}-{at}", noticed=noticed)
    return int(alive["counted"]) + 1


@pytest.mark.parametrize("verb", VERBS)
def test_a_kill_at_any_statement_loses_and_doubles_nothing(
    trials: Trials, verb: str, kind: str, ledger: Ledger
) -> None:
    boundaries = kill_everywhere(trials, verb)
    ledger.settle(f"SIGKILL at a statement of {verb} ({kind})", boundaries, trials.verdict(), trials.times[1:])
    assert boundaries > VERBS[verb][2]


@pytest.mark.parametrize("kind", ["postgres"])
@pytest.mark.parametrize("verb", [verb for verb in VERBS if VERBS[verb][0] == "complete"])
def test_a_kill_while_the_server_commits_is_recorded_or_not_but_never_half(
    trials: Trials, verb: str, kind: str, ledger: Ledger
) -> None:
    alive = attempt(trials, verb, "alive", 0)
    trials.recover("alive", noticed=True)
    dead = attempt(trials, verb, "dead", alive["counted"], sent=True)
    assert dead["code"] == -signal.SIGKILL
    trials.recover("dead", noticed=True)
    ledger.settle(f"SIGKILL while a commit is under way ({kind})", 1, trials.verdict(), trials.times[1:])


@pytest.mark.parametrize("work", ["expands afterwards", "publishes afterwards"])
def test_the_kills_find_a_worker_that_takes_two_transactions(trials: Trials, work: str) -> None:
    boundaries = kill_everywhere(trials, "expand", work=work)
    lost = trials.verdict().lost
    assert lost, f"{boundaries} kills between two transactions cannot all be harmless"
    # What lies before the first commit and behind the second harms nobody.
    runs = {run for run in trials.plan for text in lost if f"{run} " in text}
    assert 0 < len(runs) < boundaries
