CREATE TABLE blob (
	digest TEXT NOT NULL,
	n INTEGER NOT NULL,
	body BLOB NOT NULL,
	created_at BIGINT NOT NULL,
	CONSTRAINT pk_blob PRIMARY KEY (digest, n)
);

CREATE TABLE computing (
	"key" TEXT NOT NULL,
	job_id BIGINT NOT NULL,
	fence BIGINT NOT NULL,
	CONSTRAINT pk_computing PRIMARY KEY ("key")
)
 WITHOUT ROWID;

CREATE TABLE deployment (
	name TEXT NOT NULL,
	version INTEGER NOT NULL,
	workflow TEXT NOT NULL,
	graph BLOB NOT NULL,
	graph_hash TEXT NOT NULL,
	params BLOB NOT NULL,
	options BLOB NOT NULL,
	queue TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	CONSTRAINT pk_deployment PRIMARY KEY (name)
);

CREATE TABLE file_digest (
	path TEXT NOT NULL,
	size BIGINT NOT NULL,
	mtime_ns BIGINT NOT NULL,
	inode BIGINT NOT NULL,
	digest TEXT NOT NULL,
	CONSTRAINT pk_file_digest PRIMARY KEY (path)
);

CREATE TABLE memo (
	"key" TEXT NOT NULL,
	value BLOB NOT NULL,
	created_at BIGINT NOT NULL,
	CONSTRAINT pk_memo PRIMARY KEY ("key")
);

CREATE TABLE node (
	name TEXT NOT NULL,
	supervisor TEXT NOT NULL,
	host TEXT NOT NULL,
	body TEXT NOT NULL,
	clock_ms BIGINT NOT NULL,
	started_at BIGINT NOT NULL,
	heartbeat_at BIGINT NOT NULL,
	stopped_at BIGINT,
	CONSTRAINT pk_node PRIMARY KEY (name)
);

CREATE TABLE queue (
	name TEXT NOT NULL,
	paused BOOLEAN NOT NULL,
	changed_at BIGINT NOT NULL,
	CONSTRAINT pk_queue PRIMARY KEY (name)
);

CREATE TABLE result (
	"key" TEXT NOT NULL,
	run_id TEXT NOT NULL,
	body BLOB NOT NULL,
	bytes BIGINT NOT NULL,
	created_at BIGINT NOT NULL,
	CONSTRAINT pk_result PRIMARY KEY ("key")
);

CREATE TABLE run (
	id TEXT NOT NULL,
	workflow TEXT NOT NULL,
	status TEXT NOT NULL,
	session INTEGER NOT NULL,
	graph BLOB NOT NULL,
	"plan" BLOB NOT NULL,
	params BLOB NOT NULL,
	options BLOB NOT NULL,
	outputs BLOB,
	error TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	started_at BIGINT,
	finished_at BIGINT,
	graph_hash TEXT NOT NULL,
	supervisor TEXT NOT NULL,
	queue TEXT DEFAULT 'default' NOT NULL,
	priority INTEGER DEFAULT '0' NOT NULL,
	unique_key TEXT,
	idempotency_key TEXT,
	pins BLOB DEFAULT '' NOT NULL,
	deployment TEXT,
	forked_from TEXT,
	announced INTEGER DEFAULT '0' NOT NULL,
	CONSTRAINT pk_run PRIMARY KEY (id)
);

CREATE INDEX ix_run_created_at ON run (created_at);

CREATE INDEX ix_run_live ON run (queue, created_at) WHERE status IN ('queued', 'running');

CREATE INDEX ix_run_unheard ON run (finished_at) WHERE finished_at IS NOT NULL AND announced < session;

CREATE UNIQUE INDEX uq_run_idempotency_key ON run (idempotency_key);

CREATE UNIQUE INDEX uq_run_unique_key ON run (unique_key) WHERE status IN ('queued', 'running');

CREATE TABLE setting (
	"key" TEXT NOT NULL,
	value TEXT NOT NULL,
	CONSTRAINT pk_setting PRIMARY KEY ("key")
);

CREATE TABLE slot (
	"key" TEXT NOT NULL,
	n BIGINT NOT NULL,
	job_id BIGINT,
	fence BIGINT,
	CONSTRAINT pk_slot PRIMARY KEY ("key", n)
)
 WITHOUT ROWID;

CREATE TABLE spawn (
	node TEXT NOT NULL,
	queue TEXT NOT NULL,
	holder TEXT NOT NULL,
	until BIGINT NOT NULL,
	CONSTRAINT pk_spawn PRIMARY KEY (node, queue)
);

CREATE TABLE worker (
	id TEXT NOT NULL,
	kind TEXT NOT NULL,
	host TEXT NOT NULL,
	boot_id TEXT NOT NULL,
	pid BIGINT NOT NULL,
	ticks BIGINT NOT NULL,
	started_at BIGINT NOT NULL,
	heartbeat_at BIGINT NOT NULL,
	stopped_at BIGINT,
	node TEXT DEFAULT '' NOT NULL,
	queue TEXT DEFAULT '' NOT NULL,
	phases TEXT DEFAULT '' NOT NULL,
	CONSTRAINT pk_worker PRIMARY KEY (id)
);

CREATE TABLE job (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	run_id TEXT NOT NULL,
	stage TEXT NOT NULL,
	part INTEGER NOT NULL,
	start BIGINT NOT NULL,
	stop BIGINT NOT NULL,
	queue TEXT NOT NULL,
	state TEXT NOT NULL,
	rank DOUBLE NOT NULL,
	run_at BIGINT NOT NULL,
	attempt INTEGER NOT NULL,
	max_attempts INTEGER NOT NULL,
	fence BIGINT NOT NULL,
	timeout_ms BIGINT,
	claimed_at BIGINT,
	lease_until BIGINT,
	deadline_at BIGINT,
	worker TEXT,
	deps_left INTEGER NOT NULL,
	result_key TEXT,
	reused BOOLEAN NOT NULL,
	session INTEGER,
	error TEXT NOT NULL,
	node TEXT,
	node_until BIGINT,
	needs TEXT DEFAULT '' NOT NULL,
	limit_key TEXT,
	failures INTEGER DEFAULT '0' NOT NULL,
	CONSTRAINT uq_job_run_id_stage_part UNIQUE (run_id, stage, part),
	CONSTRAINT fk_job_run_id FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE
);

CREATE INDEX ix_job_failed ON job (run_id) WHERE state = 'failed';

CREATE INDEX ix_job_lease ON job (lease_until) WHERE state = 'running';

CREATE INDEX ix_job_limited ON job (limit_key) WHERE state = 'ready' AND limit_key IS NOT NULL;

CREATE INDEX ix_job_needs ON job (needs) WHERE state = 'ready' AND needs <> '';

CREATE INDEX ix_job_ready ON job (queue, rank, run_at, id) WHERE state = 'ready';

CREATE INDEX ix_job_ready_run ON job (run_id, queue, rank, run_at, id) WHERE state = 'ready';

CREATE TABLE schedule (
	id TEXT NOT NULL,
	deployment TEXT NOT NULL,
	spec TEXT NOT NULL,
	paused BOOLEAN NOT NULL,
	next_at BIGINT,
	created_at BIGINT NOT NULL,
	CONSTRAINT pk_schedule PRIMARY KEY (id),
	CONSTRAINT fk_schedule_deployment FOREIGN KEY(deployment) REFERENCES deployment (name) ON DELETE CASCADE
);

CREATE INDEX ix_schedule_next_at ON schedule (next_at);

CREATE TABLE attempt (
	job_id INTEGER NOT NULL,
	fence BIGINT NOT NULL,
	attempt INTEGER NOT NULL,
	worker TEXT NOT NULL,
	started_at BIGINT NOT NULL,
	finished_at BIGINT NOT NULL,
	outcome TEXT NOT NULL,
	error TEXT NOT NULL,
	CONSTRAINT pk_attempt PRIMARY KEY (job_id, fence),
	CONSTRAINT fk_attempt_job_id FOREIGN KEY(job_id) REFERENCES job (id) ON DELETE CASCADE
)
 WITHOUT ROWID;

CREATE TABLE edge (
	before_id INTEGER NOT NULL,
	after_id INTEGER NOT NULL,
	released BOOLEAN NOT NULL,
	CONSTRAINT pk_edge PRIMARY KEY (before_id, after_id),
	CONSTRAINT fk_edge_before_id FOREIGN KEY(before_id) REFERENCES job (id) ON DELETE CASCADE,
	CONSTRAINT fk_edge_after_id FOREIGN KEY(after_id) REFERENCES job (id) ON DELETE CASCADE
)
 WITHOUT ROWID;

CREATE INDEX ix_edge_after_id ON edge (after_id);

CREATE TABLE fire (
	schedule TEXT NOT NULL,
	fire_at BIGINT NOT NULL,
	outcome TEXT NOT NULL,
	run_id TEXT,
	fired_at BIGINT NOT NULL,
	error TEXT DEFAULT '' NOT NULL,
	CONSTRAINT pk_fire PRIMARY KEY (schedule, fire_at),
	CONSTRAINT fk_fire_schedule FOREIGN KEY(schedule) REFERENCES schedule (id) ON DELETE CASCADE
);

CREATE INDEX ix_fire_run_id ON fire (run_id);

CREATE VIEW sage_queue_depth AS SELECT job.queue AS queue, SUM(CASE WHEN state = 'ready' AND paused IS NOT TRUE AND run_at <= CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER) THEN 1 ELSE 0 END) AS ready, SUM(CASE WHEN state = 'ready' AND paused IS NOT TRUE AND run_at > CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER) THEN 1 ELSE 0 END) AS delayed, SUM(CASE WHEN state = 'ready' AND paused THEN 1 ELSE 0 END) AS held, SUM(CASE WHEN state = 'running' THEN 1 ELSE 0 END) AS running, SUM(CASE WHEN state = 'blocked' THEN 1 ELSE 0 END) AS blocked, MIN(CASE WHEN state = 'ready' THEN run_at END) AS oldest_run_at FROM job LEFT JOIN queue ON queue.name = job.queue WHERE state IN ('ready', 'running', 'blocked') GROUP BY job.queue;

INSERT INTO setting (key, value) VALUES ('product', 'sage');
