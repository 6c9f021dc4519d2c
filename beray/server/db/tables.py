"""The schema, as SQLAlchemy Core tables: the one truth from which migrations are made and queries are written.

Times are milliseconds since the epoch, UTC (`clock.py`); JSON is text.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    false,
    text,
)

ID_MOST = 2**63 - 1  # of a BIGINT; a larger id is unknown like any other (WIRE.md)

# SQLite numbers rows by itself only in a column of exactly the type INTEGER.
ID = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

user = Table(
    "user_account",  # `user` is a reserved word in PostgreSQL
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("email", String(320), nullable=False, unique=True),
    Column("password_hash", Text),  # null: cannot log in by password (the embedded server's local user)
    Column("created_at", BigInteger, nullable=False),
    Column("is_admin", Boolean, nullable=False, server_default=false()),
    Column("deleted_at", BigInteger, index=True),  # nobody's at once; the row goes when all that was theirs has gone
    sqlite_autoincrement=True,
)

verification_code = Table(
    "verification_code",
    metadata,
    Column("email", String(320), nullable=False),
    Column("purpose", String(16), nullable=False),
    Column("code_hmac", LargeBinary(32), nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("email", "purpose"),  # only the newest code counts
)

session = Table(
    "session",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("token_hash", LargeBinary(32), nullable=False, unique=True),
    Column("user_id", ID, ForeignKey("user_account.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    Column("user_agent", String(300)),  # of the program that logged in, as it calls itself
    Column("address", String(64)),  # it logged in from
    Column("last_used_at", BigInteger),  # written at most once an hour
    sqlite_autoincrement=True,
)

api_token = Table(
    "api_token",  # what a program logs in with: like a session, but named, and for as long as its owner wants
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("token_hash", LargeBinary(32), nullable=False, unique=True),
    Column("user_id", ID, ForeignKey("user_account.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", String(100), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),  # null: never
    Column("last_used_at", BigInteger),  # written at most once an hour
    sqlite_autoincrement=True,
)

rate_counter = Table(
    "rate_counter",
    metadata,
    Column("key", String(255), primary_key=True),
    Column("count", Integer, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
)

task = Table(
    "task",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("user_id", ID, ForeignKey("user_account.id", ondelete="CASCADE"), nullable=False),
    Column("goal", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger, index=True),
    Column("result", Text),
    Column("error", Text),
    Column("model", String(200)),
    Column("model_kind", String(16)),
    Column("asked_model", String(200)),  # the model its client named; null: whatever is the default
    Column("tools", Text),
    Column("limits", Text),
    Column("usage", Text, nullable=False),
    Column("question", Text),
    Column("last_seq", BigInteger, nullable=False, server_default=text("0")),
    Column("run", Integer, nullable=False, server_default=text("1")),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("interrupts", Integer, nullable=False, server_default=text("0")),  # how often this run's process went away
    Column("stop_requested", Boolean, nullable=False, server_default=false()),
    Column("held_until", BigInteger, index=True),  # made with "hold": not queued before /start
    Column("deleted_at", BigInteger, index=True),  # hidden at once; row, events and work_dir go in the background
    Column("stored_bytes", BigInteger),  # what its files take on the disk; null: not measured yet
    Column("webhook_url", Text),  # in place of its user's
    Index("ix_task_user_id_id", "user_id", "id"),
    Index("ix_task_user_id_stored_bytes", "user_id", "stored_bytes"),  # a sum without reading goals and results
    sqlite_autoincrement=True,  # an id is never used twice: SSE clients and folders keep it
)

event = Table(
    "event",
    metadata,
    Column("task_id", ID, ForeignKey("task.id", ondelete="CASCADE"), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("frame", LargeBinary, nullable=False),  # the ready SSE bytes: id, event and data line, blank line
    PrimaryKeyConstraint("task_id", "seq"),
    sqlite_with_rowid=False,
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("task_id", ID, ForeignKey("task.id", ondelete="CASCADE"), nullable=False),
    Column("run", Integer, nullable=False),
    Column("turn", Integer, nullable=False),  # the turn these messages lead into
    Column("messages", LargeBinary, nullable=False),
    Column("usage", Text, nullable=False),
    Column("state", Text, nullable=False),  # JSON: what else the loop must remember (plan, started_at, repeats)
    PrimaryKeyConstraint("task_id", "run"),
)

tool_call = Table(
    "tool_call",
    metadata,
    Column("task_id", ID, ForeignKey("task.id", ondelete="CASCADE"), nullable=False),
    Column("run", Integer, nullable=False),
    Column("call_id", String(200), nullable=False),
    Column("name", String(64), nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),  # null after a crash: interrupted, state unknown
    Column("result", Text),  # JSON: what the model was told
    PrimaryKeyConstraint("task_id", "run", "call_id"),
)

usage_day = Table(
    "usage_day",  # what each task has used, by day; outlives the task
    metadata,
    Column("task_id", ID, nullable=False),  # 0: checks of a model
    Column("day", Integer, nullable=False),  # since the epoch, UTC
    Column("user_id", ID, ForeignKey("user_account.id", ondelete="CASCADE"), nullable=False),
    Column("requests", Integer, nullable=False),
    Column("tool_calls", Integer, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost_usd", Double, nullable=False),
    Column("unpriced", Integer, nullable=False),  # requests whose cost is not known
    Column("elapsed_ms", BigInteger, nullable=False),
    Column("estimated_tokens", BigInteger, nullable=False),  # of requests whose own are not known; for limits only
    Column("estimated_cost_usd", Double, nullable=False),
    PrimaryKeyConstraint("user_id", "day", "task_id"),
    Index("ix_usage_day_day", "day"),
)

message = Table(
    "message",  # what the user has said after the goal
    metadata,
    Column("task_id", ID, ForeignKey("task.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),  # counts from 1 within the task
    Column("run", Integer, nullable=False),  # the run it was said to, or which it began
    Column("content", Text, nullable=False),
    Column("question_id", String(200)),  # of the question it answers
    Column("created_at", BigInteger, nullable=False),
    Column("delivered_at", BigInteger),  # null: not told to the model yet
    PrimaryKeyConstraint("task_id", "number"),
)

webhook = Table(
    "webhook",  # whom a user has us call; what its secrets are made of, and how the latest delivery went
    metadata,
    Column("user_id", ID, ForeignKey("user_account.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("url", Text),  # null: nobody, but for tasks that have a URL of their own
    Column("salt", LargeBinary(16), nullable=False),  # of the secret; useless without the server's secret key
    Column("made_at", BigInteger, nullable=False),  # the secret
    Column("old_salt", LargeBinary(16)),
    Column("old_until", BigInteger),  # when the secret before stops signing
    Column("given_up", Integer, nullable=False, server_default=text("0")),
    Column("last_attempt_at", BigInteger),
    Column("last_delivered_at", BigInteger),
    Column("last_status", Integer),
    Column("last_fault", String(16)),  # why the latest attempt failed; null: it did not
)

webhook_delivery = Table(
    "webhook_delivery",  # a message that a receiver has not taken yet
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("user_id", ID, ForeignKey("user_account.id", ondelete="CASCADE"), nullable=False),
    Column("task_id", ID, ForeignKey("task.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("message_id", String(80), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False, index=True),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("leased_until", BigInteger),  # by the database's clock, where several processes share it
    Index("ix_webhook_delivery_user_id_due_at", "user_id", "due_at"),
    sqlite_autoincrement=True,
)

idempotency_key = Table(
    "idempotency_key",
    metadata,
    Column("user_id", ID, ForeignKey("user_account.id", ondelete="CASCADE"), nullable=False),
    Column("key", String(255), nullable=False),
    Column("body_hash", LargeBinary(32), nullable=False),
    Column("answer", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
    PrimaryKeyConstraint("user_id", "key"),
)

audit = Table(
    "audit",  # who did what, when, from where; triggers (migration 0004) refuse to change or delete a row
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("action", String(32), nullable=False),
    Column("user_id", BigInteger),  # not a foreign key: the entry outlives the account
    Column("who", String(320)),  # the account's address, or the one that was tried; `operator NAME` for `beray admin`
    Column("address", String(64)),
    Column("task_id", BigInteger),
    Column("resource", Text),
    Column("request_id", String(128)),
    sqlite_autoincrement=True,
)

process = Table(
    "process",  # who works on this database; used only where several can
    metadata,
    Column("id", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", String(40), nullable=False),
    Column("started_at", BigInteger, nullable=False),  # by the database's clock, as beat_at
    Column("beat_at", BigInteger, nullable=False),
    Column("about", Text, nullable=False),  # JSON: what the others may want to know of it
)

writer = Table(
    "writer",  # which of its groups of writes a process has committed last; used only where connections can be lost
    metadata,
    Column("id", String(16), primary_key=True),
    Column("last_group", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),  # by the database's clock
)

volume = Table(
    "volume",  # one row: the mark of the folder of the work_dirs; used only where that folder is named apart
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("mark", String(32), nullable=False),
)

schema_floor = Table(
    "schema_floor",  # one row: the oldest program, by its newest migration, that can work on this schema
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("oldest_head", String(32), nullable=False),
)
