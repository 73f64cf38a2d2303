"""Removes what is old: ended runs, the results that no run refers to any more, remembered rows, and their files.

What an unfinished run has or may find stays: its rows refer to it, and young files wait for a commit that names them.
"""

from __future__ import annotations

import msgspec

from sage_core.common.config import RetentionConfig
from sage_core.common.records import Record
from sage_core.kernel.runtime.results import decode_result
from sage_core.platform.artifacts import HOUR_S, ArtifactStore
from sage_core.platform.store import JobStore
from sage_core.platform.transaction import Transaction

_DAY_MS = 86_400_000


class Pruned(Record):
    """How much of each kind went, or would go."""

    runs: int = 0
    results: int = 0
    #: Remembered rows.
    memos: int = 0
    #: Fire times of schedules.
    fires: int = 0
    #: Processes that said goodbye.
    workers: int = 0
    #: Files and folders below the artifacts' folder.
    artifacts: int = 0
    #: Files that machines share through the database.
    blobs: int = 0


class _Undo(Exception):
    pass


def prune(
    store: JobStore,
    artifacts: ArtifactStore,
    config: RetentionConfig,
    *,
    dry_run: bool = False,
    thorough: bool = False,
    grace_s: float = HOUR_S,
) -> Pruned:
    """Remove what the configuration does not keep, in one transaction, and then the files nothing refers to.

    Args:
        dry_run: count only.
        thorough: look for files without a reference even where no row went.
        grace_s: seconds that a result or file is kept although nothing refers to it yet.
    """
    removed, live = Pruned(), set[str]()
    try:
        with store.transaction() as tx:
            removed = _rows(tx, config, round(1000 * grace_s))
            if removed.results or thorough:
                for body in tx.result_bodies():
                    live.update(decode_result(body).files)
                unused = tx.old_blobs(round(1000 * grace_s)) - live
                if unused:
                    tx.drop_blobs(sorted(unused), keep_ms=round(1000 * grace_s))
                removed = _with(removed, blobs=len(unused))
            if dry_run:
                raise _Undo
    except _Undo:
        pass
    if removed.results or thorough:
        count = artifacts.collect_garbage(live, min_age_s=grace_s, dry_run=dry_run)
        removed = _with(removed, artifacts=count)
    return removed


def _rows(tx: Transaction, config: RetentionConfig, grace_ms: int) -> Pruned:
    found = Pruned()
    if config.runs_days is not None:
        gone = tx.remove_runs(keep_ms=round(config.runs_days * _DAY_MS), results_ms=grace_ms)
        found = _with(found, runs=gone.runs, results=gone.results, fires=gone.fires, workers=gone.workers)
    if config.memo_days is not None:
        found = _with(found, memos=tx.remove_memos(keep_ms=round(config.memo_days * _DAY_MS)))
    return found


def _with(pruned: Pruned, **counts: int) -> Pruned:
    return msgspec.structs.replace(pruned, **counts)
