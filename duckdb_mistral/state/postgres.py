"""The ledger's database on PostgreSQL, shared by the homes of a team.

READ COMMITTED, and nothing that belongs to a session: no prepared statement, no SET, no session lock. So a pooler such
as pgbouncer may hand each transaction to another connection. Reads are one round trip each: a server may be far away.
"""

from __future__ import annotations

import os
import time
import weakref
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from duckdb_mistral.errors import LedgerError
from duckdb_mistral.runtime.failpoints import failpoint
from duckdb_mistral.state.address import Address
from duckdb_mistral.state.owner import open_home, read_only
from duckdb_mistral.state.postgres_errors import ClashError, LostError, told
from duckdb_mistral.state.silence import given_up_after
from duckdb_mistral.state.tables import is_live, live_index, shared_tables, tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from duckdb_mistral.state.database import Result
    from duckdb_mistral.state.home import Home

#: What the address does not set itself. A server that is cut off is given up after half a minute, in which it has not
#: acknowledged what was sent, or that a connection is still there.
CONNECTING: dict[str, Any] = {
    "client_encoding": "UTF8",
    "connect_timeout": 10,
    "fallback_application_name": "duckdb_mistral",
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
#: A transaction that takes longer is given up: the server may be stopped, or its disk hang.
SILENT_SECONDS = 30.0
#: A thread uses one connection at a time, and another one renews the leases.
IDLE_CONNECTIONS = 2
#: The pauses before a transaction is tried again whose connection was lost, or that another one stood in the way of.
PAUSES = (0.05, 0.3, 1.0, 2.0)
#: After so many seconds none is tried again: what did not answer for so long will not.
MOST_SECONDS = 8.0
#: A transaction whose process is stopped, or whose machine died, is ended by the server after so many seconds: others
#: may wait for its rows, and a connection that was cut may count as one for hours.
IDLE_SECONDS = 30
#: The lock of whoever makes or changes tables, until the end of its transaction.
TABLES_LOCK = 7_261_001
#: Without a table of its own, a ledger is made in the first schema of the search path.
OWN_SCHEMA = "postgresql://…/database?options=-csearch_path%3Dduckdb_mistral, once CREATE SCHEMA duckdb_mistral has run"

_ABOUT = (
    "SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS is_replica, "
    "current_setting('synchronous_commit') AS synchronous_commit"
)

live_index.dialect_options["postgresql"]["where"] = is_live

_databases: weakref.WeakSet[PostgresDatabase] = weakref.WeakSet()


class PostgresDatabase:
    """The database at one address, for the user of one `home`; does what `database.Database` says."""

    def __init__(self, home: Home, url: str) -> None:
        """Connect to nothing yet; raises LedgerError without psycopg, or if `home` cannot be used."""
        self.home = home
        self.address = Address(url)
        self.writable = open_home(home.path)
        try:
            self._engine = sa.create_engine(
                "postgresql+psycopg://",
                creator=partial(_connected, self.address),
                pool_size=IDLE_CONNECTIONS,
                max_overflow=-1,
                isolation_level="READ COMMITTED",
                use_native_hstore=False,
                hide_parameters=True,
            )
        except ImportError as error:
            raise LedgerError(
                f"A ledger on PostgreSQL needs psycopg, which cannot be imported ({error}), so nothing is sent. "
                "Install it: pip install 'duckdb-mistral[team]'"
            ) from None
        self._closed = False
        #: Each statement is a transaction of its own, without a round trip for its beginning or its end.
        self._alone = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        sa.event.listen(self._engine, "before_cursor_execute", _cleaned, retval=True)
        weakref.finalize(self, self._engine.dispose)  # before Python ends, too
        _databases.add(self)

    @property
    def name(self) -> str:
        """The hosts and the database."""
        return f"at {self.address.shown}"

    @property
    def place(self) -> str:
        """The hosts and the database."""
        return self.name

    @property
    def shared(self) -> bool:
        """Every machine with the address may use it."""
        return True

    def about(self) -> str:
        """Return which server it is, for people."""
        (found,) = self.rows(sa.text(_ABOUT))
        told = f"PostgreSQL {found.version} at {self.address.shown}"
        if found.is_replica:
            told += ", a read-only replica"
        if found.synchronous_commit == "off":
            told += ", which may forget the last moments before a crash (its synchronous_commit is off)"
        return told

    def read(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Return what `work` reads, which may be called again."""
        return self._repeated(lambda: self._on(work))

    def rows(self, statement: sa.Executable) -> Sequence[sa.Row[Any]]:
        """Return all rows of a statement that reads."""
        return self.read(lambda connection: connection.execute(statement).all())

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction, which is committed when the block has ended."""
        self._check_writable()
        with self._told_errors(), self._engine.connect() as connection, _watched(connection):
            connection.execute(sa.text(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'"))
            yield connection
            failpoint("before-commit", writes=True)
            connection.commit()
        failpoint("after-commit")

    def transact(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Return what `work` returns, run as one transaction; it may be called again, as `Database` says."""

        def once() -> Result:
            with self.writing() as connection:
                return work(connection)

        return self._repeated(once)

    def write(
        self, statement: sa.Executable, values: dict[str, Any] | None = None, *, done: sa.Select[Any] | None = None
    ) -> int:
        """Run one statement as a transaction of its own; return how many rows it wrote, as `Database` says."""
        self._check_writable()
        with self._told_errors():
            failpoint("before-commit", writes=True)
            written = self.run(statement, values, done=done)
        failpoint("after-commit")
        return written

    def run(
        self, statement: sa.Executable, values: dict[str, Any] | None = None, *, done: sa.Select[Any] | None = None
    ) -> int:
        """Do what `write` does for what is no step of a submission."""
        written, again = self._once_or_again(lambda connection: connection.execute(statement, values).rowcount)
        if not written and again and done is not None:
            return int(bool(self.rows(done)))
        return written

    def updated(
        self, update: sa.Update, row: sa.Select[Any], *, done: sa.Select[Any], before: sa.Update | None = None
    ) -> sa.Row[Any] | None:
        """Run an UPDATE of one row, after the UPDATE `before`, as one statement, as `Database` says."""
        self._check_writable()
        update = update.returning(*row.selected_columns)
        if before is not None:
            update = update.add_cte(before.returning(sa.literal(True)).cte("before"))
        with self._told_errors():
            failpoint("before-commit", writes=True)
            found, again = self._once_or_again(lambda connection: connection.execute(update).first())
            if found is None and again:
                found = next(iter(self.rows(done)), None)
        failpoint("after-commit")
        return found

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Do nothing: connections are kept anyway."""
        yield

    def now(self) -> int:
        """Return the server's time: the machines that use it may each have another one."""
        ((moment,),) = self.rows(sa.select(self.clock()))
        return int(moment)

    def clock(self) -> sa.ColumnElement[int]:
        """Return the server's time."""
        return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()) * 1_000_000, sa.BigInteger)

    def damage(self) -> str | None:
        """Return None: a server looks after its own files."""
        return None

    def damaged(self, reason: str) -> LedgerError:
        """Return the error that tells that what the tables hold cannot be read."""
        return LedgerError(
            f"The ledger {self.name} is damaged ({reason}), so nothing is sent. Restore that database from a backup, "
            "or set DUCKDB_MISTRAL_LEDGER to a new one; `duckdb-mistral doctor --repair` then restores from the "
            "workspace's jobs what it lacks."
        )

    def change_tables(self, connection: sa.Connection) -> None:
        """Let no other process make or change tables until the transaction ends."""
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": TABLES_LOCK})

    def make_tables(self, connection: sa.Connection) -> None:
        """Make all tables; raises LedgerError where they would be mixed with another program's."""
        inspector = sa.inspect(connection)
        others = [name for name in (*tables.tables, *shared_tables.tables) if inspector.has_table(name)]
        if others:
            raise LedgerError(
                f"The database {self.name} has a table {others[0]} of another program, so nothing is sent. Give the "
                f"ledger a database of its own, or a schema: {OWN_SCHEMA}."
            )
        tables.create_all(connection, checkfirst=False)
        shared_tables.create_all(connection, checkfirst=False)

    def settle(self) -> None:
        """Do nothing: there is no file to move."""

    def close(self) -> None:
        """Close the connections that are idle, and those in use once they are."""
        self._closed = True
        self._engine.dispose()

    def _check_writable(self) -> None:
        if not self.writable:
            raise read_only(self.home.path)

    def _on(self, work: Callable[[sa.Connection], Result]) -> Result:
        try:
            with self._told_errors(), self._alone.connect() as connection, _watched(connection):
                return work(connection)
        finally:
            if self._closed:  # meanwhile: another thread may have renewed a lease
                self._engine.dispose()

    def _once_or_again(self, work: Callable[[sa.Connection], Result]) -> tuple[Result, bool]:
        """Return what a statement of its own returns, and whether it was run more than once."""
        tries = 0

        def once() -> Result:
            nonlocal tries
            tries += 1
            return self._on(work)

        return self._repeated(once), tries > 1

    def _repeated(self, once: Callable[[], Result]) -> Result:
        """Return what `once` returns, called again where the connection was lost or another transaction was in the way.

        A connection that was idle may have been lost long ago, as after the server was restarted.
        """
        until = time.monotonic() + MOST_SECONDS
        for pause in PAUSES:
            try:
                return once()
            except (ClashError, LostError):
                if time.monotonic() > until:
                    raise
                time.sleep(pause)
        return once()

    @contextmanager
    def _told_errors(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.IntegrityError:
            raise
        except OSError as error:
            raise LedgerError(
                f"The ledger {self.name} cannot be used ({error.strerror}), so nothing is sent."
            ) from error
        except sa.exc.DBAPIError as error:
            # The driver's own error may hold more of the address than anybody should see.
            raise told(error, self.address) from None


def _watched(connection: sa.Connection) -> AbstractContextManager[None]:
    return given_up_after(SILENT_SECONDS, connection.connection.dbapi_connection)


def _connected(address: Address) -> Any:
    """Return a new connection; the driver knows more of addresses than anybody else, so it gets this one as it is."""
    import psycopg

    given = {name: value for name, value in CONNECTING.items() if name not in address.parameters}
    connection = psycopg.connect(address.url, prepare_threshold=None, **given)
    if connection.info.parameter_status("server_encoding") not in (None, "UTF8"):
        connection.close()
        raise LedgerError(
            f"The database at {address.shown} cannot hold all texts, so nothing is sent. Give the ledger one with the "
            "encoding UTF8."
        )
    return connection


def _cleaned(_: Any, __: Any, statement: str, values: Any, *___: Any) -> tuple[str, Any]:
    """Return a statement's values without what PostgreSQL cannot hold."""
    if isinstance(values, dict):
        return statement, _clean(values)
    return statement, [_clean(one) if isinstance(one, dict) else one for one in values]


def _clean(values: dict[str, Any]) -> dict[str, Any]:
    """Return values whose texts are UTF-8 without NUL."""
    return {name: _text(value) if isinstance(value, str) else value for name, value in values.items()}


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\N{REPLACEMENT CHARACTER}")


def _leave_to_parent() -> None:
    """Let a child of fork have connections of its own; its parent's are not closed."""
    for database in list(_databases):
        database._engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
