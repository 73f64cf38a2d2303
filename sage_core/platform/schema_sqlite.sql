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

CREATE TABLE result (
	"key" TEXT NOT NULL,
	run_id TEXT NOT NULL,
	body BLOB NOT NULL,
	bytes BIGINT NOT NULL,
	created_at BIGINT NOT NULL,
	scope_run TEXT,
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
	CONSTRAINT pk_run PRIMARY KEY (id)
);

CREATE INDEX ix_run_created_at ON run (created_at);

CREATE TABLE setting (
	"key" TEXT NOT NULL,
	value TEXT NOT NULL,
	CONSTRAINT pk_setting PRIMARY KEY ("key")
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
	CONSTRAINT uq_job_run_id_stage_part UNIQUE (run_id, stage, part),
	CONSTRAINT fk_job_run_id FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE
);

CREATE INDEX ix_job_lease ON job (lease_until) WHERE state = 'running';

CREATE INDEX ix_job_ready ON job (queue, rank, run_at, id) WHERE state = 'ready';

CREATE INDEX ix_job_ready_run ON job (run_id, queue, rank, run_at, id) WHERE state = 'ready';

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

INSERT INTO setting (key, value) VALUES ('product', 'sage');
