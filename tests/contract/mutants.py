"""Stores that break the protocol in one place each, on either database."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from sage_core.platform.database import Database, Dialect, Parameters, Row
from sage_core.platform.store import JobStore
from sage_core.platform.transaction import Transaction

#: How the two databases spell a parameter, or an item of a list that is one.
VALUE = r"(?:spread\.\w+|%\(\w+\)s(?:::\w+)?|:\w+|json_extract\([^)]*\)|CAST\([^()]*\))"
NOW = r"CAST\((?:extract\(epoch FROM statement_timestamp\(\)\)|\(julianday\('now'\) - [\d.]+\)) \* [\d.]+ AS \w+\)"


class Mutant(JobStore):
    """A store with a piece of a statement replaced."""

    #: By dialect: a statement, what of it, and what instead.
    change: ClassVar[Mapping[Dialect, tuple[str, str, str]]]

    @classmethod
    def statements(cls, dialect: Dialect) -> Mapping[str, str]:
        name, old, new = cls.change[dialect]
        texts = dict(super().statements(dialect))
        pattern = old.replace("{v}", VALUE).replace("{now}", NOW)
        mutated = re.sub(pattern, new, texts[name])
        assert mutated != texts[name], f"{name} holds no {pattern!r}: {texts[name]}"
        texts[name] = mutated
        return texts


class CommitsAnyway(JobStore):
    """A crash inside a transaction leaves half of it."""

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        self._db.begin()
        try:
            yield Transaction(self._db)
        finally:
            self._db.commit()


class Splits(Transaction):
    """Acknowledges a result before everything that belongs to it is written."""

    def finish(self, job_id: int, fence: int | None, **given: Any) -> None:
        super().finish(job_id, fence, **given)
        self._db.commit()
        self._db.begin()


class AcknowledgesFirst(JobStore):
    """Commits the end of a job before its result and its successors."""

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        self._db.begin()
        try:
            yield Splits(self._db)
        except BaseException:
            self._db.rollback()
            raise
        self._db.commit()


class ClaimsFirst(JobStore):
    """Commits a claim before its slot is taken."""

    def _with_slots(self, rows: Sequence[Row]) -> list[Row]:
        self._db.commit()
        self._db.begin()
        return super()._with_slots(rows)


class Without(JobStore):
    """A store that leaves statements out, as if nobody had thought of them."""

    left_out: ClassVar[frozenset[str]]

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        fetch, left_out = database.fetch, self.left_out

        def skipping(name: str, parameters: Parameters) -> list[tuple[Any, ...]]:
            return [] if name in left_out else fetch(name, parameters)

        database.fetch = skipping  # type: ignore[method-assign]


def mutant(
    statement: str, old: str, new: str = "", *, postgresql: tuple[str, str, str] | None = None
) -> type[JobStore]:
    """Replace what a pattern finds in a statement; ``{v}`` stands for a parameter, ``{now}`` for the clock.

    Args:
        postgresql: the same there, where it is another statement.
    """
    change = (statement, old, new)
    return type("Mutant", (Mutant,), {"change": {"sqlite": change, "postgresql": postgresql or change}})


def without(*statements: str) -> type[JobStore]:
    """Leave statements out."""
    return type("Mutant", (Without,), {"left_out": frozenset(statements)})


FENCE, STATE = r" AND job\.fence = {v}", r" AND job\.state( \|\| '')? = 'running'"
#: A result is kept of an attempt that has just ended, and what keeps it of all that say they have.
DONE, KEPT = r" AND \(EXISTS \(SELECT \* FROM job .*?'done'\)\)", r"SELECT done\.result_key.* FROM done WHERE"
ALL = (
    "SELECT done.* FROM unnest(%(result_key)s::TEXT[], %(run_id)s::TEXT[], %(body)s::BYTEA[], %(fence)s::BIGINT[],"
    " %(fence)s::BIGINT[]) AS done(result_key, run_id, body, created_at, bytes) WHERE"
)
PAIRS = r"\(job\.id, job\.fence\) IN \(SELECT .*? AS \w+\)(?= AND job\.state)"
HOLDER = r"NOT \(EXISTS \(SELECT \* FROM job AS holder .*?'running'\)\)"
STALE, OVER = "test_a_stale_attempt_is_refused", "test_an_attempt_that_is_over_is_refused"
BEST = "test_a_claim_takes_the_best_rank_first_and_each_job_once"
EXPANDS = "test_a_completion_expands_its_successors"
ONE_SLOT = "test_jobs_of_a_key_with_one_slot_never_run_at_once"
ONCE = "test_releasing_counts_a_job_once_and_only_when_it_is_done"
FIRE = "test_a_fire_time_fires_once"

#: Name → the store, the test of the suite that must fail it, and which case of that test.
MUTANTS: dict[str, tuple[type[JobStore], str, str | None]] = {
    "finish without its fence": (mutant("finish", FENCE), STALE, "finish"),
    "finish without its state": (mutant("finish", STATE), OVER, "finish"),
    "result of a stale attempt": (mutant("finish", FENCE), STALE, "put_result"),
    "fail without its fence": (mutant("held_one", FENCE), STALE, "fail"),
    "fail without its state": (mutant("held_one", STATE), OVER, "fail"),
    "snooze without its fence": (mutant("held_one", FENCE), STALE, "snooze"),
    "snooze without its state": (mutant("held_one", STATE), OVER, "snooze"),
    "memo without its fence": (mutant("held_one", FENCE), STALE, "memo_put"),
    "memo without its state": (mutant("held_one", STATE), OVER, "memo_put"),
    "renew without its fence": (mutant("renew", PAIRS, "1 = 1"), STALE, "renew"),
    "renew without its state": (mutant("renew", STATE), OVER, "renew"),
    "give back without its fence": (mutant("held_pairs", PAIRS, "1 = 1"), STALE, "give_back"),
    "batch of results without fences": (
        mutant("finish", FENCE),
        "test_a_stale_attempt_in_a_batch_is_named_and_leaves_nothing",
        None,
    ),
    "results of attempts that lost their jobs": (
        mutant("finish_result", DONE, postgresql=("finish", KEPT, ALL)),
        "test_a_stale_attempt_in_a_batch_is_named_and_leaves_nothing",
        None,
    ),
    "a lost job goes to the end": (
        mutant("settle", r"ELSE job\.run_at", "ELSE job.run_at + 1000"),
        "test_a_job_that_comes_back_keeps_its_place_among_its_siblings",
        "lost",
    ),
    "seize leaves the fence": (
        mutant("job_seize", r"fence=\(job\.fence \+ 1\)", "fence=job.fence"),
        "test_a_running_job_that_is_seized_is_its_workers_no_more",
        None,
    ),
    "give back takes the fence back": (
        mutant("settle", "SET state", "SET fence=job.fence - 1, state"),
        "test_giving_back_refunds_the_attempt_and_never_the_fence",
        None,
    ),
    "claim without a higher fence": (
        mutant("claim", r"fence=\(job\.fence \+ 1\)", "fence=CASE WHEN job.fence > 1 THEN job.fence ELSE 1 END"),
        "test_an_expired_lease_hands_the_job_over_under_a_higher_fence",
        None,
    ),
    "claim takes what runs": (
        mutant("claim", r"job\.state( \|\| '')? = 'ready'", "job.state IN ('ready', 'running')"),
        BEST,
        None,
    ),
    "claim without an order": (mutant("claim", r"ORDER BY job\.rank, ", "ORDER BY job.id, "), BEST, None),
    "claim too early": (mutant("claim", r"job\.run_at <=", "0 * job.run_at <="), "test_a_delayed_job_waits", None),
    "claim from another queue": (
        mutant("claim", r"job\.queue = {v}", "1 = 1"),
        "test_a_claim_keeps_to_its_run_and_queue",
        None,
    ),
    "claim for another run": (
        mutant("claim_run", r"job\.run_id = {v}", "1 = 1"),
        "test_a_claim_keeps_to_its_run_and_queue",
        None,
    ),
    "renew beyond the deadline": (
        mutant("renew", r"job\.deadline_at IS NULL OR", "1 = 1 OR"),
        "test_a_deadline_ends_an_attempt_that_keeps_renewing",
        None,
    ),
    "renew by worker beyond the deadline": (
        mutant("renew_workers", r"job\.deadline_at IS NULL OR", "1 = 1 OR"),
        "test_renewing_by_worker_keeps_the_deadline",
        None,
    ),
    "renew by worker what it lost": (
        mutant("renew_workers", r"job\.state = 'running'", "1 = 1"),
        "test_renewing_by_worker_prolongs_what_each_still_holds",
        None,
    ),
    "housekeeping without a bound": (
        mutant("held_expired", "LIMIT {v}", "LIMIT 1000"),
        "test_housekeeping_is_bounded",
        None,
    ),
    "release without decrement": (
        mutant("job_release", r"deps_left=\(job\.deps_left - {v}\)", "deps_left=job.deps_left"),
        "test_a_job_is_released_when_its_last_predecessor_is_done",
        None,
    ),
    "release at the first predecessor": (
        mutant("job_release", r" AND job\.deps_left <= {v}", ""),
        "test_a_job_is_released_when_its_last_predecessor_is_done",
        None,
    ),
    "release counted twice": (mutant("edge_release", r" AND (NOT edge\.released|edge\.released = 0)"), ONCE, None),
    "release before the job is done": (mutant("edge_release", "AND job.state = 'done'", ""), ONCE, None),
    "expand twice": (
        mutant("job_insert", "(?= RETURNING)", " ON CONFLICT (run_id, stage, part) DO UPDATE SET part = excluded.part"),
        EXPANDS,
        None,
    ),
    "expand without raising the collect": (
        mutant("job_block", r"deps_left=\(job\.deps_left \+ {v}\)", "deps_left=1"),
        EXPANDS,
        None,
    ),
    "later results replace the first": (
        mutant("result_insert", "DO NOTHING", '("key") DO UPDATE SET body = excluded.body'),
        "test_the_first_result_of_a_key_stays",
        None,
    ),
    "reuse of a job that is done": (
        mutant("finish_unclaimed", r"job\.state IN \('ready', 'blocked'\)", "1 = 1"),
        "test_a_reused_job_is_done_without_a_claim",
        None,
    ),
    "a lost result still counts": (
        mutant("edge_restore", r"released=(0|false)", "released=edge.released"),
        "test_resuming_runs_a_job_again_whose_result_is_gone",
        None,
    ),
    "half a transaction": (CommitsAnyway, "test_a_crash_inside_a_completion_leaves_nothing", None),
    "result after acknowledgement": (AcknowledgesFirst, "test_a_crash_inside_a_completion_leaves_nothing", None),
    "a run that ends leaves its jobs": (
        mutant("held_left", "'ready', ", ""),
        "test_a_run_that_ends_takes_what_is_left_with_it",
        None,
    ),
    "a run ends for a session that is over": (
        mutant("run_finish", r"{v} IS NULL OR", "1 = 1 OR"),
        "test_a_run_that_ends_takes_what_is_left_with_it",
        None,
    ),
    # ------------------------------------------------------------ queues, slots, placement, needs
    "claim from a paused queue": (
        mutant("claim", r"queue\.paused(?: = 1)?(?=\))", "1 = 0"),
        "test_a_paused_queue_hands_out_nothing_and_lets_what_runs_finish",
        None,
    ),
    "claim for a run from a paused queue": (
        mutant("claim_run", r"queue\.paused(?: = 1)?(?=\))", "1 = 0"),
        "test_a_paused_queue_hands_out_nothing_and_lets_what_runs_finish",
        None,
    ),
    "a slot taken from its holder": (mutant("slot_take", HOLDER, "1 = 1"), ONE_SLOT, None),
    "a slot kept by the dead": (
        mutant("slot_take", r" AND holder\.state \|\| '' = 'running'"),
        "test_an_attempt_that_ends_frees_its_slot",
        "finished",
    ),
    "a slot kept by an earlier attempt": (
        mutant("slot_take", r" AND holder\.fence = slot\.fence"),
        "test_a_slot_of_an_earlier_attempt_is_free",
        None,
    ),
    "slots that are never dropped": (
        mutant("slots_above", r"slot\.n >= {v}", "1 = 0"),
        "test_a_count_of_slots_is_lowered_and_raised",
        None,
    ),
    "slots dropped from their holders": (
        mutant("slots_drop", HOLDER, "1 = 1"),
        "test_a_count_of_slots_is_lowered_and_raised",
        None,
    ),
    "slots beyond a lowered count that do not count": (
        mutant("slot_take", r"OFFSET \(SELECT count.*?'running'\)\)", "OFFSET (SELECT 0"),
        "test_a_count_of_slots_is_lowered_and_raised",
        None,
    ),
    "limited jobs passed by while others are ready": (
        mutant("claim", r"FROM slot WHERE slot\.n >= 0", "FROM slot WHERE 1 = 0"),
        ONE_SLOT,
        None,
    ),
    "a claim committed before its slot": (ClaimsFirst, "test_a_claim_is_committed_with_its_slot_or_not_at_all", None),
    "a claim without a slot counts as an attempt": (
        mutant("unclaim", r"attempt=\(job\.attempt - 1\)", "attempt=job.attempt"),
        ONE_SLOT,
        None,
    ),
    "claim of another node's job": (
        mutant("claim", r"job\.node = {v}", "1 = 1"),
        "test_a_placed_job_waits_for_its_node_while_its_patience_lasts",
        None,
    ),
    "placement that outlives its node": (
        mutant("settle", "node=NULL, node_until=NULL", "node=job.node, node_until=job.node_until"),
        "test_a_node_that_dies_loses_its_placement",
        None,
    ),
    "claim of what the node cannot give": (
        mutant("claim", r"job\.needs = ''", "1 = 1"),
        "test_a_job_with_needs_is_left_to_a_node_that_meets_them",
        None,
    ),
    "a reservation of any node": (
        mutant("needs_running", r"job\.node = {v}", "1 = 1"),
        "test_what_runs_elsewhere_takes_nothing_from_this_node",
        None,
    ),
    # ------------------------------------------------------------ keys
    "a key taken from its holder": (
        mutant("computing_take", HOLDER, "1 = 1"),
        "test_one_running_attempt_computes_a_key",
        None,
    ),
    "a key kept by an earlier attempt": (
        mutant("computing_take", r" AND holder\.fence = computing\.fence"),
        "test_a_key_is_free_when_its_attempt_has_ended",
        None,
    ),
    "a key dropped by anybody": (
        mutant("computing_drop", r" AND computing\.job_id = {v} AND computing\.fence = {v}"),
        "test_one_running_attempt_computes_a_key",
        None,
    ),
    "a unique key that outlives its run": (
        mutant("run_of_keys", r" AND \(run\.status NOT IN \([^)]*\)\)", ""),
        "test_a_unique_key_is_free_when_its_run_has_ended",
        None,
    ),
    # ------------------------------------------------------------ nodes and schedules
    "a living node taken over": (
        mutant("node_announce", r"WHERE node\.supervisor = .*$", "WHERE 1 = 1"),
        "test_a_node_has_one_supervisor_at_a_time",
        None,
    ),
    "a silent node never taken over": (
        mutant("node_announce", r"OR node\.heartbeat_at < .*$", ""),
        "test_a_silent_node_is_taken_over_and_its_former_supervisor_told",
        None,
    ),
    "silence told by the node's clock": (
        mutant("node_announce", r"(\(({v}) - {now}\), {now}), {now}", r"\1, \2"),
        "test_a_node_whose_clock_is_off_is_measured_and_not_believed",
        None,
    ),
    "a beat of a former supervisor": (
        mutant("node_beat", r" AND node\.supervisor = {v}"),
        "test_a_silent_node_is_taken_over_and_its_former_supervisor_told",
        None,
    ),
    "a right to spawn that two hold": (
        mutant("spawn_take", r"WHERE spawn\.until .*$", ""),
        "test_one_holder_starts_the_workers_of_a_queue",
        None,
    ),
    "a right to spawn for ever": (
        mutant("spawn_take", r"spawn\.until <= {now} OR ", ""),
        "test_the_right_to_start_workers_runs_out",
        None,
    ),
    "a fire without its key": (
        mutant("fire_insert", "DO NOTHING", "(schedule, fire_at) DO UPDATE SET outcome = excluded.outcome"),
        FIRE,
        None,
    ),
    "a paused schedule that is due": (
        mutant("schedules_due", r" AND (NOT schedule\.paused|schedule\.paused = 0)"),
        "test_what_is_due_is_what_is_neither_paused_nor_later",
        None,
    ),
    "a schedule that is due too early": (
        mutant("schedules_due", r"schedule\.next_at <= ", "0 * schedule.next_at <= "),
        "test_what_is_due_is_what_is_neither_paused_nor_later",
        None,
    ),
    "a schedule that forgets its switch": (
        mutant("schedule_put", "SET spec", "SET paused = excluded.paused, spec"),
        "test_deploying_again_keeps_the_switch_and_the_next_time",
        None,
    ),
}
