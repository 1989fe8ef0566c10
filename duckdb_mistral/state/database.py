"""What the ledger asks of its database, whichever engine it has: a file of SQLite, or PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    import sqlalchemy as sa

    from duckdb_mistral.errors import LedgerError
    from duckdb_mistral.state.home import Home

Result = TypeVar("Result")


class Database(Protocol):
    """One database; safe for several threads, each of which has connections of its own.

    Whatever goes wrong is a LedgerError, but for sa.exc.IntegrityError where a value is there already.
    """

    home: Home
    #: Whether more can be done than to read what is kept.
    writable: bool

    @property
    def name(self) -> str:
        """The database, as it follows "The ledger" in a sentence."""

    @property
    def place(self) -> str:
        """Where it lies, as it follows "the ledger" in a sentence that is not about the database itself."""

    @property
    def shared(self) -> bool:
        """Whether homes on other machines may use it too, so that requests may lie with another one."""

    def read(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Return what `work` reads, which may be called again; each statement sees what was written before it."""

    def rows(self, statement: sa.Executable) -> Sequence[sa.Row[Any]]:
        """Return all rows of a statement that reads."""

    def writing(self) -> AbstractContextManager[sa.Connection]:
        """Yield a connection in a transaction, which is on the disk when the block has ended."""

    def transact(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Return what `work` returns, run as one transaction.

        It may be called again, even where it was committed before and the answer to that was lost: so what it does
        twice must be what it does once, or end in an IntegrityError.
        """

    def run(
        self, statement: sa.Executable, values: dict[str, Any] | None = None, *, done: sa.Select[Any] | None = None
    ) -> int:
        """Do what `write` does for what is no step of a submission."""

    def write(
        self, statement: sa.Executable, values: dict[str, Any] | None = None, *, done: sa.Select[Any] | None = None
    ) -> int:
        """Run one statement as a transaction of its own; return how many rows it wrote.

        It may be run again if its answer was lost. If it writes nothing then, `done` tells whether it had written
        before: it selects a row where it had.
        """

    def updated(
        self, update: sa.Update, row: sa.Select[Any], *, done: sa.Select[Any], before: sa.Update | None = None
    ) -> sa.Row[Any] | None:
        """Run an UPDATE of one row, after the UPDATE `before`, as one transaction; return what `row` selects of it.

        None where the row did not match. Both may be run again if the answer was lost; `done` selects the same of the
        row where it had been written then.
        """

    def kept_open(self) -> AbstractContextManager[None]:
        """Let the many transactions of a block be cheap."""

    def close(self) -> None:
        """Close connections that are idle; the next use opens others."""

    def now(self) -> int:
        """Return the time in µs since 1970 by the one clock that all users of this database have in common."""

    def clock(self) -> sa.ColumnElement[int]:
        """Return the time that `now` tells as a part of a statement."""

    def damage(self) -> str | None:
        """Return what is wrong with the database, None where it is sound."""

    def damaged(self, reason: str) -> LedgerError:
        """Return the error that tells that it is damaged."""

    def change_tables(self, connection: sa.Connection) -> None:
        """Let no other process make or change tables until the transaction ends."""

    def make_tables(self, connection: sa.Connection) -> None:
        """Make all tables in a new database; raises LedgerError if this is not where a new ledger belongs."""

    def about(self) -> str:
        """Return which database it is, for people."""

    def settle(self) -> None:
        """Bring all that is written to where it can be moved from, if it is a file."""
