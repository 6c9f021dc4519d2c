-- Written by `python -m beray.server.db.migrations.as_sql` from the migrations; not by hand.

CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE rate_counter (
    "key" VARCHAR(255) NOT NULL,
    count INTEGER NOT NULL,
    started_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    CONSTRAINT pk_rate_counter PRIMARY KEY ("key")
);

CREATE INDEX ix_rate_counter_expires_at ON rate_counter (expires_at);

CREATE TABLE user_account (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    email VARCHAR(320) NOT NULL,
    password_hash TEXT,
    created_at BIGINT NOT NULL,
    CONSTRAINT uq_user_account_email UNIQUE (email)
);

CREATE TABLE verification_code (
    email VARCHAR(320) NOT NULL,
    purpose VARCHAR(16) NOT NULL,
    code_hmac BLOB NOT NULL,
    attempts INTEGER DEFAULT 0 NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    CONSTRAINT pk_verification_code PRIMARY KEY (email, purpose)
);

CREATE TABLE idempotency_key (
    user_id INTEGER NOT NULL,
    "key" VARCHAR(255) NOT NULL,
    body_hash BLOB NOT NULL,
    answer BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    CONSTRAINT pk_idempotency_key PRIMARY KEY (user_id, "key"),
    CONSTRAINT fk_idempotency_key_user_id FOREIGN KEY(user_id) REFERENCES user_account (id) ON DELETE CASCADE
);

CREATE INDEX ix_idempotency_key_created_at ON idempotency_key (created_at);

CREATE TABLE session (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    token_hash BLOB NOT NULL,
    user_id INTEGER NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT,
    CONSTRAINT fk_session_user_id FOREIGN KEY(user_id) REFERENCES user_account (id) ON DELETE CASCADE,
    CONSTRAINT uq_session_token_hash UNIQUE (token_hash)
);

CREATE INDEX ix_session_user_id ON session (user_id);

CREATE TABLE task (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL,
    goal TEXT NOT NULL,
    status VARCHAR(16) NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    result TEXT,
    error TEXT,
    model VARCHAR(200),
    model_kind VARCHAR(16),
    tools TEXT,
    limits TEXT,
    usage TEXT NOT NULL,
    question TEXT,
    last_seq BIGINT DEFAULT 0 NOT NULL,
    run INTEGER DEFAULT 1 NOT NULL,
    attempt INTEGER DEFAULT 0 NOT NULL,
    stop_requested BOOLEAN DEFAULT 0 NOT NULL,
    held_until BIGINT,
    deleted_at BIGINT,
    CONSTRAINT fk_task_user_id FOREIGN KEY(user_id) REFERENCES user_account (id) ON DELETE CASCADE
);

CREATE INDEX ix_task_user_id_id ON task (user_id, id);

CREATE TABLE checkpoint (
    task_id INTEGER NOT NULL,
    run INTEGER NOT NULL,
    turn INTEGER NOT NULL,
    messages BLOB NOT NULL,
    usage TEXT NOT NULL,
    state TEXT NOT NULL,
    CONSTRAINT pk_checkpoint PRIMARY KEY (task_id, run),
    CONSTRAINT fk_checkpoint_task_id FOREIGN KEY(task_id) REFERENCES task (id) ON DELETE CASCADE
);

CREATE TABLE event (
    task_id INTEGER NOT NULL,
    seq BIGINT NOT NULL,
    frame BLOB NOT NULL,
    CONSTRAINT pk_event PRIMARY KEY (task_id, seq),
    CONSTRAINT fk_event_task_id FOREIGN KEY(task_id) REFERENCES task (id) ON DELETE CASCADE
)
 WITHOUT ROWID;

CREATE TABLE tool_call (
    task_id INTEGER NOT NULL,
    run INTEGER NOT NULL,
    call_id VARCHAR(200) NOT NULL,
    name VARCHAR(64) NOT NULL,
    started_at BIGINT NOT NULL,
    finished_at BIGINT,
    result TEXT,
    CONSTRAINT pk_tool_call PRIMARY KEY (task_id, run, call_id),
    CONSTRAINT fk_tool_call_task_id FOREIGN KEY(task_id) REFERENCES task (id) ON DELETE CASCADE
);

INSERT INTO alembic_version (version_num) VALUES ('0001') RETURNING version_num;

CREATE TABLE process (
    id VARCHAR(64) NOT NULL,
    role VARCHAR(16) NOT NULL,
    host VARCHAR(255) NOT NULL,
    pid INTEGER NOT NULL,
    version VARCHAR(40) NOT NULL,
    started_at BIGINT NOT NULL,
    beat_at BIGINT NOT NULL,
    about TEXT NOT NULL,
    CONSTRAINT pk_process PRIMARY KEY (id)
);

CREATE TABLE writer (
    id VARCHAR(16) NOT NULL,
    last_group BIGINT NOT NULL,
    at BIGINT NOT NULL,
    CONSTRAINT pk_writer PRIMARY KEY (id)
);

CREATE TABLE schema_floor (
    id INTEGER NOT NULL,
    oldest_head VARCHAR(32) NOT NULL,
    CONSTRAINT pk_schema_floor PRIMARY KEY (id)
);

INSERT INTO schema_floor (id, oldest_head) VALUES (1, '0002');

ALTER TABLE task ADD COLUMN interrupts INTEGER DEFAULT 0 NOT NULL;

CREATE INDEX ix_task_deleted_at ON task (deleted_at);

CREATE INDEX ix_task_finished_at ON task (finished_at);

CREATE INDEX ix_task_held_until ON task (held_until);

UPDATE alembic_version SET version_num='0002' WHERE alembic_version.version_num = '0001';

CREATE TABLE volume (
    id INTEGER NOT NULL,
    mark VARCHAR(32) NOT NULL,
    CONSTRAINT pk_volume PRIMARY KEY (id)
);

UPDATE alembic_version SET version_num='0003' WHERE alembic_version.version_num = '0002';

CREATE TABLE audit (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at BIGINT NOT NULL,
    action VARCHAR(32) NOT NULL,
    user_id BIGINT,
    who VARCHAR(320),
    address VARCHAR(64),
    task_id BIGINT,
    resource TEXT,
    request_id VARCHAR(128)
);

CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;

CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;

CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;

ALTER TABLE task ADD COLUMN stored_bytes BIGINT;

CREATE INDEX ix_task_user_id_stored_bytes ON task (user_id, stored_bytes);

UPDATE alembic_version SET version_num='0004' WHERE alembic_version.version_num = '0003';

CREATE TABLE message (
    task_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    run INTEGER NOT NULL,
    content TEXT NOT NULL,
    question_id VARCHAR(200),
    created_at BIGINT NOT NULL,
    delivered_at BIGINT,
    CONSTRAINT pk_message PRIMARY KEY (task_id, number),
    CONSTRAINT fk_message_task_id FOREIGN KEY(task_id) REFERENCES task (id) ON DELETE CASCADE
);

UPDATE alembic_version SET version_num='0005' WHERE alembic_version.version_num = '0004';

CREATE TABLE usage_day (
    task_id INTEGER NOT NULL,
    day INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    tool_calls INTEGER NOT NULL,
    input_tokens BIGINT NOT NULL,
    cached_input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    cost_usd DOUBLE NOT NULL,
    unpriced INTEGER NOT NULL,
    elapsed_ms BIGINT NOT NULL,
    estimated_tokens BIGINT NOT NULL,
    estimated_cost_usd DOUBLE NOT NULL,
    CONSTRAINT pk_usage_day PRIMARY KEY (user_id, day, task_id),
    CONSTRAINT fk_usage_day_user_id FOREIGN KEY(user_id) REFERENCES user_account (id) ON DELETE CASCADE
);

CREATE INDEX ix_usage_day_day ON usage_day (day);

ALTER TABLE task ADD COLUMN asked_model VARCHAR(200);

UPDATE alembic_version SET version_num='0006' WHERE alembic_version.version_num = '0005';

CREATE TABLE api_token (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    token_hash BLOB NOT NULL,
    user_id INTEGER NOT NULL,
    name VARCHAR(100) NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT,
    CONSTRAINT fk_api_token_user_id FOREIGN KEY(user_id) REFERENCES user_account (id) ON DELETE CASCADE,
    CONSTRAINT uq_api_token_token_hash UNIQUE (token_hash)
);

CREATE INDEX ix_api_token_user_id ON api_token (user_id);

UPDATE alembic_version SET version_num='0007' WHERE alembic_version.version_num = '0006';

ALTER TABLE task ADD COLUMN webhook_url TEXT;

CREATE TABLE webhook (
    user_id INTEGER NOT NULL,
    url TEXT,
    salt BLOB NOT NULL,
    made_at BIGINT NOT NULL,
    old_salt BLOB,
    old_until BIGINT,
    given_up INTEGER DEFAULT 0 NOT NULL,
    last_attempt_at BIGINT,
    last_delivered_at BIGINT,
    last_status INTEGER,
    last_fault VARCHAR(16),
    CONSTRAINT pk_webhook PRIMARY KEY (user_id),
    CONSTRAINT fk_webhook_user_id FOREIGN KEY(user_id) REFERENCES user_account (id) ON DELETE CASCADE
);

CREATE TABLE webhook_delivery (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL,
    task_id INTEGER NOT NULL,
    message_id VARCHAR(80) NOT NULL,
    body BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    attempts INTEGER DEFAULT 0 NOT NULL,
    leased_until BIGINT,
    CONSTRAINT fk_webhook_delivery_user_id FOREIGN KEY(user_id) REFERENCES user_account (id) ON DELETE CASCADE,
    CONSTRAINT fk_webhook_delivery_task_id FOREIGN KEY(task_id) REFERENCES task (id) ON DELETE CASCADE
);

CREATE INDEX ix_webhook_delivery_task_id ON webhook_delivery (task_id);

CREATE INDEX ix_webhook_delivery_due_at ON webhook_delivery (due_at);

CREATE INDEX ix_webhook_delivery_user_id_due_at ON webhook_delivery (user_id, due_at);

UPDATE alembic_version SET version_num='0008' WHERE alembic_version.version_num = '0007';

ALTER TABLE session ADD COLUMN user_agent VARCHAR(300);

ALTER TABLE session ADD COLUMN address VARCHAR(64);

ALTER TABLE session ADD COLUMN last_used_at BIGINT;

ALTER TABLE user_account ADD COLUMN is_admin BOOLEAN DEFAULT 0 NOT NULL;

ALTER TABLE user_account ADD COLUMN deleted_at BIGINT;

CREATE INDEX ix_user_account_deleted_at ON user_account (deleted_at);

UPDATE alembic_version SET version_num='0009' WHERE alembic_version.version_num = '0008';

