"""The ledger's database: one SQLite file under `home`, and what becomes of it on a disk that is full or damaged.

What PostgreSQL does otherwise is here, and nowhere else in the ledger: both do what `database.Database` says.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from duckdb_mistral.errors import LedgerError
from duckdb_mistral.jobs.job import now
from duckdb_mistral.runtime.failpoints import failpoint
from duckdb_mistral.state.fork_gate import ForkGate
from duckdb_mistral.state.inventory import entries
from duckdb_mistral.state.owner import open_home, read_only, unwritable
from duckdb_mistral.state.sqlite_connections import BUSY_SECONDS, close_brief, connected, connected_to_read
from duckdb_mistral.state.tables import tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from duckdb_mistral.state.database import Result
    from duckdb_mistral.state.home import Home

#: What SQLite says where the disk has no room for the file of memory that its processes share.
NO_ROOM = ("SQLITE_IOERR_SHMOPEN", "SQLITE_IOERR_SHMSIZE")

_databases: weakref.WeakSet[SQLiteDatabase] = weakref.WeakSet()
_gate = ForkGate()


class DamagedLedgerError(LedgerError):
    """The file is no longer a ledger; only a repair helps."""


def is_lost(home: Home) -> bool:
    """Tell whether there is no ledger under `home`, but files that only a ledger explains."""
    # Another process may have made the ledger meanwhile, and files after it.
    return not home.ledger.exists() and holds_more(home) and not home.ledger.exists()


def holds_more(home: Home) -> bool:
    """Tell whether there are files under `home` that only a ledger explains."""
    return any(map(entries, home.explained)) or bool(home.asides)


class SQLiteDatabase:
    """The database of one `home` directory; safe for several threads, each of which has connections of its own."""

    def __init__(self, home: Home) -> None:
        """Open the file under `home`, and make both where they do not exist.

        Raises LedgerError if that cannot be done, or if the file is lost.
        """
        self.home = home
        self.path = home.ledger
        #: Whether more can be done than to read what is kept.
        self.writable = open_home(home.path)
        if is_lost(home):
            raise LedgerError(lost(home))
        try:
            if self.writable or not self.path.exists():
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise unwritable(home.path, str(error.strerror)) from error
        self._engine = sa.create_engine(
            "sqlite://", poolclass=sa.QueuePool, pool_size=1, max_overflow=-1, creator=self._connect
        )
        sa.event.listen(self._engine, "checkout", self._check_file)
        sa.event.listen(self._engine, "checkin", close_brief)
        self._lock = threading.Lock()
        self._users = 0
        _databases.add(self)

    @property
    def name(self) -> str:
        """The file."""
        return str(self.path)

    @property
    def place(self) -> str:
        """The directory that it is under."""
        return f"under {self.home}"

    @property
    def shared(self) -> bool:
        """A file under `home` is used by this machine alone."""
        return False

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Yield a connection whose statements read; each sees what was written before it."""
        with self._told_errors(), _gate.inside(self.path), self.kept_open(), self._engine.connect() as connection:
            yield connection

    def read(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Return what `work` reads."""
        with self.reading() as connection:
            return work(connection)

    def rows(self, statement: sa.Executable) -> Sequence[sa.Row[Any]]:
        """Return all rows of a statement that reads."""
        with self.reading() as connection:
            return connection.execute(statement).all()

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction, which is on the disk when the block has ended."""
        with self._to_write() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            failpoint("before-commit", writes=True)
            connection.commit()
        failpoint("after-commit")

    def transact(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Return what `work` returns, run as one transaction."""
        with self.writing() as connection:
            return work(connection)

    def write(
        self, statement: sa.Executable, values: dict[str, Any] | None = None, *, done: sa.Select[Any] | None = None
    ) -> int:
        """Run one statement as a transaction of its own; return how many rows it wrote. No answer of it is lost."""
        del done
        with self._to_write() as connection:
            failpoint("before-commit", writes=True)
            written: int = connection.execute(statement, values).rowcount
        failpoint("after-commit")
        return written

    def updated(
        self, update: sa.Update, row: sa.Select[Any], *, done: sa.Select[Any], before: sa.Update | None = None
    ) -> sa.Row[Any] | None:
        """Run an UPDATE of one row, after the UPDATE `before`, as one transaction; return what `row` selects of it."""
        del done
        with self.writing() as connection:
            if before is not None:
                connection.execute(before)
            return connection.execute(row).first() if connection.execute(update).rowcount else None

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Let transactions of the block be cheap: they use one connection, one after another.

        The last connection to be closed brings its log into the file. So between the blocks, all that is written is in
        the one file, as long as no other process is at it.
        """
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self.let_go()

    def let_go(self) -> None:
        """Close the connection that is idle, if there is one; nothing but speed depends on it."""
        self._engine.pool.dispose()

    def run(
        self, statement: sa.Executable, values: dict[str, Any] | None = None, *, done: sa.Select[Any] | None = None
    ) -> int:
        """Do what `write` does."""
        return self.write(statement, values, done=done)

    def close(self) -> None:
        """Close the connection that is idle."""
        self.let_go()

    def about(self) -> str:
        """Return which database it is, for people."""
        return f"SQLite {sqlite3.sqlite_version} in {self.path}"

    def now(self) -> int:
        """Return this machine's time: nobody else uses the file."""
        return now()

    def clock(self) -> sa.ColumnElement[int]:
        """Return this machine's time."""
        return sa.literal(now(), sa.BigInteger)

    def change_tables(self, connection: sa.Connection) -> None:
        """Do nothing: a transaction that writes has the file for itself."""

    def make_tables(self, connection: sa.Connection) -> None:
        """Make all tables in a new file; raises DamagedLedgerError if there was another one."""
        # A new one has nothing beside it: a full disk or a failed copy leaves an empty file.
        if holds_more(self.home):
            raise DamagedLedgerError(lost(self.home))
        tables.create_all(connection)

    def damage(self) -> str | None:
        """Return what is wrong with the file, None where it is sound."""
        with self.reading() as connection:
            health = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
        return None if health == "ok" else " ".join(health.split())

    def settle(self) -> None:
        """Bring all that is written into the one file at `path`, so that it can be moved."""
        with self.reading() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def damaged(self, reason: str) -> DamagedLedgerError:
        """Return the error that tells that the file is damaged."""
        return DamagedLedgerError(
            f"The ledger {self.path} is damaged ({reason}), so nothing is sent. `duckdb-mistral doctor --repair` puts "
            "it aside and rebuilds it from the workspace's jobs."
        )

    def _connect(self) -> sqlite3.Connection:
        """Return a connection; the ledger on a full disk can still be read, by one process at a time."""
        if not self.writable:
            return connected_to_read(self.home)
        try:
            return connected(self.path)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname not in NO_ROOM:
                raise
        return connected(self.path, alone=True)

    def _check_file(self, _: object, record: Any, __: object) -> None:
        """Let another connection take the place of one to a file that is no longer at `path`, as after a restore."""
        try:
            file = self.path.stat()
        except FileNotFoundError:
            raise sa.exc.DisconnectionError from None
        found = (file.st_dev, file.st_ino)
        if record.info.setdefault("file", found) != found:
            raise sa.exc.DisconnectionError

    @contextmanager
    def _to_write(self) -> Iterator[sa.Connection]:
        if not self.writable:
            raise read_only(self.home.path)
        with self.reading() as connection:
            yield connection

    @contextmanager
    def _told_errors(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.IntegrityError as error:
            if getattr(error.orig, "sqlite_errorname", None) == "SQLITE_CONSTRAINT_TRIGGER":
                raise LedgerError(str(error.orig)) from None  # it was moved, as its triggers say (`stamp.py`)
            raise
        except OSError as error:
            raise LedgerError(_unusable(self.path, str(error.strerror))) from error
        except sa.exc.DBAPIError as error:
            reason = str(error.orig)
            if "malformed" in reason or "not a database" in reason:
                raise self.damaged(reason) from error
            raise LedgerError(_unusable(self.path, reason)) from error


def lost(home: Home) -> str:
    """Return the sentence for a ledger that is gone."""
    return (
        f"The ledger under {home} is gone, but files that it knew are still there, so nothing is sent. "
        "`duckdb-mistral doctor --repair` rebuilds it from the workspace's jobs. To begin without it, move that "
        "directory aside."
    )


def _unusable(path: Path, reason: str) -> str:
    if "locked" in reason:
        return (
            f"Another process has been writing the ledger {path} for {BUSY_SECONDS} seconds, so nothing is sent. "
            "Try again once that process is done."
        )
    return (
        f"The ledger {path} cannot be used ({reason}), so nothing is sent. Free some space on its disk, or repair it, "
        "and try again: `duckdb-mistral clean` shows what can be freed under that directory."
    )


#: The databases that a fork finds, whose locks are held meanwhile.
_forking: list[SQLiteDatabase] = []


def _before_fork() -> None:
    """Close everything, as far as other threads come to an end with it."""
    _gate.close()
    _forking[:] = list(_databases)
    for database in _forking:
        database._lock.acquire()
        database.let_go()


def _release() -> None:
    while _forking:
        _forking.pop()._lock.release()


def _after_fork() -> None:
    _release()
    _gate.open()


def _after_fork_in_child() -> None:
    """Leave connections that were in use to the parent, and the locks that its other threads held on them."""
    for database in _forking:
        database._engine.dispose(close=False)
    _release()
    _gate.open_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
