"""Queues, keys and placement of jobs; nodes, deployments, schedules; what machines share."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

#: As it was at this revision; `tables.VIEWS` says what it is at the newest.
VIEW = (
    "SELECT job.queue AS queue,"
    " SUM(CASE WHEN state = 'ready' AND paused IS NOT TRUE AND run_at <= {now} THEN 1 ELSE 0 END) AS ready,"
    " SUM(CASE WHEN state = 'ready' AND paused IS NOT TRUE AND run_at > {now} THEN 1 ELSE 0 END) AS delayed,"
    " SUM(CASE WHEN state = 'ready' AND paused THEN 1 ELSE 0 END) AS held,"
    " SUM(CASE WHEN state = 'running' THEN 1 ELSE 0 END) AS running,"
    " SUM(CASE WHEN state = 'blocked' THEN 1 ELSE 0 END) AS blocked,"
    " MIN(CASE WHEN state = 'ready' THEN run_at END) AS oldest_run_at"
    " FROM job LEFT JOIN queue ON queue.name = job.queue"
    " WHERE state IN ('ready', 'running', 'blocked') GROUP BY job.queue"
)
NOW = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)",
    "postgresql": "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT)",
}


def upgrade() -> None:
    op.create_table('blob',
    sa.Column('digest', sa.Text(), nullable=False),
    sa.Column('n', sa.Integer(), nullable=False),
    sa.Column('body', sa.LargeBinary(), nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('digest', 'n', name=op.f('pk_blob'))
    )
    op.create_table('computing',
    sa.Column('key', sa.Text(), nullable=False),
    sa.Column('job_id', sa.BigInteger(), nullable=False),
    sa.Column('fence', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('key', name=op.f('pk_computing')),
    sqlite_with_rowid=False
    )
    op.create_table('deployment',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('workflow', sa.Text(), nullable=False),
    sa.Column('graph', sa.LargeBinary(), nullable=False),
    sa.Column('graph_hash', sa.Text(), nullable=False),
    sa.Column('params', sa.LargeBinary(), nullable=False),
    sa.Column('options', sa.LargeBinary(), nullable=False),
    sa.Column('queue', sa.Text(), nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_deployment'))
    )
    op.create_table('node',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('supervisor', sa.Text(), nullable=False),
    sa.Column('host', sa.Text(), nullable=False),
    sa.Column('body', sa.Text(), nullable=False),
    sa.Column('clock_ms', sa.BigInteger(), nullable=False),
    sa.Column('started_at', sa.BigInteger(), nullable=False),
    sa.Column('heartbeat_at', sa.BigInteger(), nullable=False),
    sa.Column('stopped_at', sa.BigInteger(), nullable=True),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_node'))
    )
    op.create_table('queue',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('paused', sa.Boolean(), nullable=False),
    sa.Column('changed_at', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_queue'))
    )
    op.create_table('slot',
    sa.Column('key', sa.Text(), nullable=False),
    sa.Column('n', sa.BigInteger(), nullable=False),
    sa.Column('job_id', sa.BigInteger(), nullable=True),
    sa.Column('fence', sa.BigInteger(), nullable=True),
    sa.PrimaryKeyConstraint('key', 'n', name=op.f('pk_slot')),
    sqlite_with_rowid=False
    )
    op.create_table('spawn',
    sa.Column('node', sa.Text(), nullable=False),
    sa.Column('queue', sa.Text(), nullable=False),
    sa.Column('holder', sa.Text(), nullable=False),
    sa.Column('until', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('node', 'queue', name=op.f('pk_spawn'))
    )
    op.create_table('schedule',
    sa.Column('id', sa.Text(), nullable=False),
    sa.Column('deployment', sa.Text(), nullable=False),
    sa.Column('spec', sa.Text(), nullable=False),
    sa.Column('paused', sa.Boolean(), nullable=False),
    sa.Column('next_at', sa.BigInteger(), nullable=True),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['deployment'], ['deployment.name'], name=op.f('fk_schedule_deployment'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_schedule'))
    )
    op.create_index('ix_schedule_next_at', 'schedule', ['next_at'], unique=False)
    op.create_table('fire',
    sa.Column('schedule', sa.Text(), nullable=False),
    sa.Column('fire_at', sa.BigInteger(), nullable=False),
    sa.Column('outcome', sa.Text(), nullable=False),
    sa.Column('run_id', sa.Text(), nullable=True),
    sa.Column('fired_at', sa.BigInteger(), nullable=False),
    sa.Column('error', sa.Text(), server_default='', nullable=False),
    sa.ForeignKeyConstraint(['schedule'], ['schedule.id'], name=op.f('fk_fire_schedule'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('schedule', 'fire_at', name=op.f('pk_fire'))
    )
    op.create_index('ix_fire_run_id', 'fire', ['run_id'], unique=False)
    op.add_column('job', sa.Column('node', sa.Text(), nullable=True))
    op.add_column('job', sa.Column('node_until', sa.BigInteger(), nullable=True))
    op.add_column('job', sa.Column('needs', sa.Text(), server_default='', nullable=False))
    op.add_column('job', sa.Column('limit_key', sa.Text(), nullable=True))
    op.add_column('job', sa.Column('failures', sa.Integer(), server_default='0', nullable=False))
    op.create_index('ix_job_needs', 'job', ['needs'], unique=False, sqlite_where=sa.text("state = 'ready' AND needs <> ''"), postgresql_where=sa.text("state = 'ready' AND needs <> ''"))
    op.create_index('ix_job_limited', 'job', ['limit_key'], unique=False, sqlite_where=sa.text("state = 'ready' AND limit_key IS NOT NULL"), postgresql_where=sa.text("state = 'ready' AND limit_key IS NOT NULL"))
    op.drop_column('result', 'scope_run')
    op.create_index('ix_job_failed', 'job', ['run_id'], unique=False, sqlite_where=sa.text("state = 'failed'"), postgresql_where=sa.text("state = 'failed'"))
    op.add_column('run', sa.Column('queue', sa.Text(), server_default='default', nullable=False))
    op.add_column('run', sa.Column('priority', sa.Integer(), server_default='0', nullable=False))
    op.add_column('run', sa.Column('unique_key', sa.Text(), nullable=True))
    op.add_column('run', sa.Column('idempotency_key', sa.Text(), nullable=True))
    op.add_column('run', sa.Column('pins', sa.LargeBinary(), server_default='', nullable=False))
    op.add_column('run', sa.Column('deployment', sa.Text(), nullable=True))
    op.add_column('run', sa.Column('forked_from', sa.Text(), nullable=True))
    op.add_column('run', sa.Column('announced', sa.Integer(), server_default='0', nullable=False))
    # Plugins heard of what ended before.
    op.execute("UPDATE run SET announced = session WHERE finished_at IS NOT NULL")
    op.create_index('ix_run_unheard', 'run', ['finished_at'], unique=False, sqlite_where=sa.text("finished_at IS NOT NULL AND announced < session"), postgresql_where=sa.text("finished_at IS NOT NULL AND announced < session"))
    op.create_index('uq_run_idempotency_key', 'run', ['idempotency_key'], unique=True)
    op.create_index('uq_run_unique_key', 'run', ['unique_key'], unique=True, sqlite_where=sa.text("status IN ('queued', 'running')"), postgresql_where=sa.text("status IN ('queued', 'running')"))
    op.create_index('ix_run_live', 'run', ['queue', 'created_at'], unique=False, sqlite_where=sa.text("status IN ('queued', 'running')"), postgresql_where=sa.text("status IN ('queued', 'running')"))
    op.add_column('worker', sa.Column('node', sa.Text(), server_default='', nullable=False))
    op.add_column('worker', sa.Column('queue', sa.Text(), server_default='', nullable=False))
    op.add_column('worker', sa.Column('phases', sa.Text(), server_default='', nullable=False))
    op.execute("CREATE VIEW sage_queue_depth AS " + VIEW.format(now=NOW[op.get_context().dialect.name]))


def downgrade() -> None:
    op.execute("DROP VIEW sage_queue_depth")
    op.drop_column('worker', 'phases')
    op.drop_column('worker', 'queue')
    op.drop_column('worker', 'node')
    op.drop_index('ix_run_live', table_name='run', sqlite_where=sa.text("status IN ('queued', 'running')"), postgresql_where=sa.text("status IN ('queued', 'running')"))
    op.drop_index('uq_run_unique_key', table_name='run', sqlite_where=sa.text("status IN ('queued', 'running')"), postgresql_where=sa.text("status IN ('queued', 'running')"))
    op.drop_index('uq_run_idempotency_key', table_name='run')
    op.drop_index('ix_run_unheard', table_name='run', sqlite_where=sa.text("finished_at IS NOT NULL AND announced < session"), postgresql_where=sa.text("finished_at IS NOT NULL AND announced < session"))
    op.drop_column('run', 'announced')
    op.drop_column('run', 'forked_from')
    op.drop_column('run', 'deployment')
    op.drop_column('run', 'pins')
    op.drop_column('run', 'idempotency_key')
    op.drop_column('run', 'unique_key')
    op.drop_column('run', 'priority')
    op.drop_column('run', 'queue')
    op.drop_index('ix_job_limited', table_name='job', sqlite_where=sa.text("state = 'ready' AND limit_key IS NOT NULL"), postgresql_where=sa.text("state = 'ready' AND limit_key IS NOT NULL"))
    op.add_column('result', sa.Column('scope_run', sa.Text(), nullable=True))
    op.drop_index('ix_job_failed', table_name='job', sqlite_where=sa.text("state = 'failed'"), postgresql_where=sa.text("state = 'failed'"))
    op.drop_index('ix_job_needs', table_name='job', sqlite_where=sa.text("state = 'ready' AND needs <> ''"), postgresql_where=sa.text("state = 'ready' AND needs <> ''"))
    op.drop_column('job', 'failures')
    op.drop_column('job', 'limit_key')
    op.drop_column('job', 'needs')
    op.drop_column('job', 'node_until')
    op.drop_column('job', 'node')
    op.drop_index('ix_fire_run_id', table_name='fire')
    op.drop_table('fire')
    op.drop_index('ix_schedule_next_at', table_name='schedule')
    op.drop_table('schedule')
    op.drop_table('spawn')
    op.drop_table('slot')
    op.drop_table('queue')
    op.drop_table('node')
    op.drop_table('deployment')
    op.drop_table('computing')
    op.drop_table('blob')
