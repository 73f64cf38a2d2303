"""Statements about what is kept by content, and about what attempts that ended leave."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from sage_core.platform import tables as t
from sage_core.platform.records import FileDigest
from sage_core.platform.spelling import Spelling, lit

FILE = [t.file_digest.c[name] for name in FileDigest.__struct_fields__]


def value_queries(s: Spelling) -> dict[str, Any]:
    """What is kept by content: results, memos, file digests."""
    result, memo, file = t.result, t.memo, t.file_digest
    keys = s.listed("keys", sa.Text)
    put_file = s.insert(file)
    body = {c.name: c.type for c in result.c if c.name != "created_at"}
    new = s.spread(**body)
    kept = {**new, "created_at": s.now}
    return {
        **finish_queries(s),
        "result_insert": s.insert_from(result)
        .from_select(result.c.keys(), sa.select(*(kept[column.name] for column in result.c)))
        .on_conflict_do_nothing(),
        "results": sa.select(result.c.key, result.c.body).where(result.c.key.in_(keys)),
        "results_forget": sa.delete(result).where(result.c.key.in_(keys)),
        "memo_insert": s.insert(memo, created_at=s.now).on_conflict_do_nothing(),
        "memos": sa.select(memo.c.key, memo.c.value).where(memo.c.key.in_(keys)),
        "file_insert": put_file.on_conflict_do_update(
            index_elements=[file.c.path],
            set_={name: put_file.excluded[name] for name in ("size", "mtime_ns", "inode", "digest")},
        ),
        "files": sa.select(*FILE).where(file.c.path.in_(keys)),
    }


def finish_queries(s: Spelling) -> dict[str, Any]:
    """What attempts that own their jobs leave, each row of parameters one of them: end, line of history, result.

    SQLite says it in three statements. PostgreSQL says it in one, which can be a transaction of its own.
    """
    job, result = t.job, t.result
    types = {name: job.c[name].type for name in ("fence", "result_key", "reused", "session", "failures")}
    new = s.spread(job_id=sa.BigInteger, **types, run_id=sa.Text, body=sa.LargeBinary)
    owned = sa.and_(job.c.id == new["job_id"], job.c.fence == new["fence"])
    finish = (
        sa.update(job)
        .where(owned, s.unindexed(job.c.state) == lit("running"))
        .values(
            state=lit("done"),
            **{name: new[name] for name in types if name != "fence"},
            error=lit(""),
            lease_until=sa.null(),
            deadline_at=sa.null(),
        )
    )
    line = ("id", "fence", "attempt", "worker", "claimed_at")

    def told(rows: Any, *where: Any) -> Any:
        # One that comes twice has left its line already.
        values = sa.select(*(rows[name] for name in line), s.now, lit("done"), lit("")).where(*where)
        return s.insert_from(t.attempt).from_select(t.attempt.c.keys(), values).on_conflict_do_nothing()

    def kept(rows: Any, *where: Any) -> Any:
        values = {"key": rows["result_key"], "run_id": rows["run_id"], "body": rows["body"], "created_at": s.now}
        values["bytes"] = sa.func.length(rows["body"])
        chosen = sa.select(*values.values()).where(rows["body"].is_not(None), *where)
        return s.insert_from(result).from_select([*values], chosen).on_conflict_do_nothing()

    if s.dialect == "sqlite":
        done = sa.and_(owned, job.c.state == lit("done"))
        return {
            "finish": finish.returning(job.c.id),
            "finish_history": told(job.c, done),
            "finish_result": kept(new, sa.exists().where(done)),
        }
    given = [new[name] for name in ("result_key", "run_id", "body")]
    ended = finish.returning(*(job.c[name] for name in line), *given).cte("done")
    return {"finish": sa.select(ended.c.id).add_cte(told(ended.c).cte("told"), kept(ended.c).cte("kept"))}
