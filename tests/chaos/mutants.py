"""Stores and workers that break the protocol in one place each: the history checker must notice every one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from sage_core.common.records import Job
from sage_core.platform.database import Dialect
from sage_core.platform.store import JobStore
from tests.chaos.history import result_key
from tests.chaos.work import Work

#: Conditions on a job's fence, state and count, with either dialect's parameters.
FENCE = r" AND job\.fence = (?:spread\.fence|:\w+|%\(\w+\)s::BIGINT|CAST\([^)]*\)|json_extract\([^)]*\))"
RUNNING = r" AND (?:job\.state|\(job\.state \|\| ''\)) = 'running'"
#: The key of the history of attempts would stop these mutants, and nothing would be left to notice.
TWICE = ("attempt_insert", "$", " ON CONFLICT DO NOTHING")
N = r"(?::n|%\(n\)s::INTEGER)"


class Mutant(JobStore):
    """A store with one piece of one statement replaced, in both dialects."""

    changes: ClassVar[tuple[tuple[str, str, str], ...]]

    @classmethod
    def statements(cls, dialect: Dialect) -> Mapping[str, str]:
        texts = dict(super().statements(dialect))
        for name, old, new in cls.changes:
            texts[name], found = re.subn(old, new, texts[name])
            assert found, f"{name} holds no {old!r}: {texts[name]}"
        return texts


def mutant(*changes: tuple[str, str, str]) -> type[JobStore]:
    """Make a store of changes (statement, pattern, replacement)."""
    return type("Mutant", (Mutant,), {"changes": changes})


class ExpandsAfterwards(Work):
    """Records an opener in one transaction and its parts in the next."""

    def complete(self, job: Job) -> None:
        body = self.compute(job)
        if job.stage != "open":
            with self.store.transaction() as tx:
                self.record(tx, job, body)
            return
        with self.store.transaction() as tx:
            tx.put_result(result_key(job.id, job.fence), body, run_id=job.run_id)
            tx.finish(job.id, job.fence, result_key=result_key(job.id, job.fence), session=1)
        with self.store.transaction() as tx:
            self.expand(tx, job)
            tx.release([job.id])


class PublishesAfterwards(Work):
    """Says that a job is done before its result is there."""

    def complete(self, job: Job) -> None:
        body = self.compute(job)
        with self.store.transaction() as tx:
            tx.finish(job.id, job.fence, result_key=result_key(job.id, job.fence), session=1)
            if job.stage == "open":
                self.expand(tx, job)
            tx.release([job.id])
            if job.stage == "collect":
                tx.finish_run(job.run_id, "succeeded", outputs=body)
        with self.store.transaction() as tx:
            tx.put_result(result_key(job.id, job.fence), body, run_id=job.run_id)


class PublishesBeforehand(Work):
    """Writes a result outside of the transaction that the fence guards."""

    def complete(self, job: Job) -> None:
        body = self.compute(job)
        with self.store.transaction() as tx:
            tx.put_result(result_key(job.id, job.fence), body, run_id=job.run_id)
        super().complete(job)


STORES: dict[str, type[JobStore]] = {
    "store": JobStore,
    "without its fence": mutant(("finish", FENCE, ""), ("finish", RUNNING, ""), TWICE),
    "fence kept at a claim": mutant(("claim", r"fence=\(job\.fence \+ 1\)", "fence=1"), TWICE),
    "release without decrement": mutant(
        ("job_release", rf"deps_left=\(job\.deps_left - {N}\)", "deps_left=job.deps_left")
    ),
    "release at the first": mutant(("job_release", rf" AND job\.deps_left <= {N}", "")),
}
WORKS: dict[str, type[Work]] = {
    "work": Work,
    "expands afterwards": ExpandsAfterwards,
    "publishes afterwards": PublishesAfterwards,
    "publishes beforehand": PublishesBeforehand,
}
