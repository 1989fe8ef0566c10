"""Connections to the ledger's file: with a log where that can be written, and to read alone where nothing can."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.state.home import Home

#: How long a write waits for another process's write.
BUSY_SECONDS = 30
PAUSE_SECONDS = 0.01


class _Brief(sqlite3.Connection):
    """A connection for one transaction: it keeps others out, or does not see what they write."""


def connected_to_read(home: Home) -> sqlite3.Connection:
    """Return a connection to a ledger whose directory this process cannot write into."""
    log = home.ledger_log
    # SQLite reads a log only beside its index, which others may hold; without a log, the file is all there is.
    alone = not log.exists() or not log.stat().st_size
    given = f"{home.ledger.absolute().as_uri()}?mode=ro{'&immutable=1' if alone else ''}"
    return sqlite3.connect(given, uri=True, timeout=BUSY_SECONDS, isolation_level=None, factory=_Brief)


def connected(path: Path, *, alone: bool = False) -> sqlite3.Connection:
    """Return a connection, which with `alone` needs no room on the disk and lets no other one read."""
    # Transactions begin where this module says so.
    kind = _Brief if alone else sqlite3.Connection
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, factory=kind
    )
    try:
        if alone:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        _keep_a_log(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _keep_a_log(connection: sqlite3.Connection) -> None:
    """Let the file have a log; if another process gives a new file its log just then, SQLite does not wait for it."""
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > end:
                raise
            time.sleep(PAUSE_SECONDS)
        else:
            return


def close_brief(connection: object, record: Any) -> None:
    """Close a connection for one transaction when a pool gets it back."""
    if isinstance(connection, _Brief):
        record.invalidate()
