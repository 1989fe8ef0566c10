"""The tables of the ledger, and the steps from an older version's tables to these."""

from __future__ import annotations

import sqlalchemy as sa

#: The version of the tables below.
SCHEMA_VERSION = 4
#: What makes a ledger of version N one of version N + 1.
MIGRATIONS = {
    1: ("ALTER TABLE jobs ADD COLUMN results_bytes BIGINT",),
    2: ("ALTER TABLE parts ADD COLUMN upload_began BOOLEAN",),
    3: (
        "ALTER TABLE jobs ADD COLUMN results_missing BIGINT",
        "ALTER TABLE jobs ADD COLUMN results_told TEXT",
        "ALTER TABLE jobs ADD COLUMN sent_here_at BIGINT",
        "ALTER TABLE jobs ADD COLUMN least_wait BIGINT",
    ),
}

#: What the name of a row of `meta` begins with that notes a submission as forgotten.
FORGOTTEN = "forgotten "

tables = sa.MetaData()
#: The tables that only a ledger has which several machines share.
shared_tables = sa.MetaData()

meta = sa.Table(
    "meta",
    tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

submissions = sa.Table(
    "submissions",
    tables,
    sa.Column("submission_id", sa.Text, primary_key=True),
    sa.Column("identity", sa.Text, nullable=False),
    sa.Column("live", sa.Boolean, nullable=False, default=True),
    sa.Column("server_url", sa.Text, nullable=False),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("models", sa.Text, nullable=False),
    sa.Column("timeout_hours", sa.Integer, nullable=False),
    sa.Column("metadata", sa.Text, nullable=False),
    sa.Column("request_count", sa.BigInteger, nullable=False),
    sa.Column("input_bytes", sa.BigInteger, nullable=False),
    sa.Column("output", sa.Text),
    sa.Column("retry_of", sa.Text),
    sa.Column("created_at", sa.BigInteger, nullable=False),
)
is_live = submissions.c.live.is_(True)
#: Of one content, one submission stands for it. PostgreSQL's dialect takes long to import: `postgres.py` tells it.
live_index = sa.Index("submissions_live", submissions.c.identity, unique=True, sqlite_where=is_live)

parts = sa.Table(
    "parts",
    tables,
    sa.Column("submission_id", sa.ForeignKey("submissions.submission_id"), primary_key=True),
    sa.Column("part", sa.Integer, primary_key=True),
    sa.Column("request_count", sa.BigInteger, nullable=False),
    sa.Column("input_bytes", sa.BigInteger, nullable=False),
    sa.Column("file_id", sa.Text),
    sa.Column("upload_began", sa.Boolean),
)

jobs = sa.Table(
    "jobs",
    tables,
    # SQLite counts rows by an INTEGER alone.
    sa.Column("key", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(), primary_key=True),
    sa.Column("submission_id", sa.ForeignKey("submissions.submission_id"), index=True),
    sa.Column("part", sa.Integer, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("server_url", sa.Text, nullable=False),
    sa.Column("step", sa.Text, nullable=False),
    sa.Column("request_count", sa.BigInteger, nullable=False),
    sa.Column("input_bytes", sa.BigInteger, nullable=False),
    sa.Column("created_here_at", sa.BigInteger, nullable=False),
    sa.Column("sent_at", sa.BigInteger),
    sa.Column("checked_at", sa.BigInteger),
    sa.Column("message", sa.Text),
    sa.Column("results", sa.Text),
    sa.Column("job_id", sa.Text, unique=True),
    sa.Column("status", sa.Text),
    sa.Column("report", sa.Text),
    sa.Column("results_bytes", sa.BigInteger),
    sa.Column("results_missing", sa.BigInteger),
    sa.Column("results_told", sa.Text),
    sa.Column("sent_here_at", sa.BigInteger),
    sa.Column("least_wait", sa.BigInteger),
)

#: Who holds which lock, until when by the server's clock (`leases.py`).
locks = sa.Table(
    "locks",
    shared_tables,
    sa.Column("name", sa.Text, primary_key=True),
    #: Another one for each time that the lock is taken.
    sa.Column("owner", sa.Text, nullable=False),
    #: Where the lock's file lies, so that whoever holds it knows that an owner of the same place is gone.
    sa.Column("place", sa.Text, nullable=False),
    #: The holder in words, for people.
    sa.Column("told", sa.Text, nullable=False),
    sa.Column("until", sa.DateTime(timezone=True), nullable=False),
)
