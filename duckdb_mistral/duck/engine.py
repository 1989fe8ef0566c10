"""Our own DuckDB engines, for work on our own files."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import duckdb

from duckdb_mistral.errors import LedgerError
from duckdb_mistral.runtime import interrupts
from duckdb_mistral.runtime.forks import leave_to_parent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def disk_is_full(error: duckdb.Error) -> bool:
    """Tell whether DuckDB found no room to write."""
    return isinstance(error, duckdb.IOException) and os.strerror(errno.ENOSPC) in str(error)


class Engines:
    """An engine for one task after another, because the caller's connection is busy with the caller's statement.

    Opening one takes longer than a small task, so it is kept until `close`.
    """

    def __init__(self) -> None:
        """Open nothing yet."""
        self._engine: duckdb.DuckDBPyConnection | None = None

    @contextmanager
    def one(self, spill: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a connection with its own temporary tables and views, for one thread at a time.

        Data that does not fit into memory goes to the directory `spill`, which exists only while it is needed; without
        `spill`, nothing may exceed memory. Raises LedgerError if there is no room.
        """
        # A cursor shows no progress bar; the connection itself does if Python is interactive.
        with self._spilling_to("" if spill is None else str(spill)).cursor() as connection:
            connection.execute("SET preserve_insertion_order = false")
            try:
                yield connection
            except duckdb.Error as error:
                if not (isinstance(error, duckdb.OutOfMemoryException) or disk_is_full(error)):
                    raise
                where = "memory" if spill is None else f"memory, or disk under {spill.parent},"
                raise LedgerError(
                    f"There is not enough {where} for this work. Nothing is lost: free some, and run the statement "
                    "again."
                ) from error

    def close(self) -> None:
        """Close the engine; the next task opens another."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _spilling_to(self, directory: str) -> duckdb.DuckDBPyConnection:
        if self._engine is not None:
            try:
                self._engine.execute("SET temp_directory = $directory", {"directory": directory})
            except duckdb.Error:  # the engine has spilled, so it keeps its directory; or it has failed for good
                self.close()
            else:
                return self._engine
        self._engine = duckdb.connect(
            ":memory:", config={"temp_directory": directory, "autoinstall_known_extensions": False}
        )
        leave_to_parent(self._engine)
        return self._engine


class SharedEngine:
    """An engine that threads take turns with: one task at a time has the memory and the cores."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._engines = Engines()
        self._taken = threading.Lock()

    @contextmanager
    def one(self, spill: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a connection as `Engines.one` does, once no other thread has one; raise if interrupted by then."""
        with self._taken:
            interrupts.check()
            with self._engines.one(spill) as connection:
                yield connection

    def close(self) -> None:
        """Close the engine, unless, after an interrupt, a thread is still working with it."""
        if self._taken.acquire(blocking=False):
            try:
                self._engines.close()
            finally:
                self._taken.release()


@contextmanager
def own_engine(spill: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open our own engine for a single task."""
    engines = Engines()
    try:
        with engines.one(spill) as connection:
            yield connection
    finally:
        engines.close()


def keep_build_sides(engine: duckdb.DuckDBPyConnection) -> None:
    """Make joins hold their second side in memory, however large DuckDB thinks it is.

    Otherwise it would hold the lines of requests, whose number it guesses from the size of their file.
    """
    engine.execute("SET disabled_optimizers = 'build_side_probe_side,join_order'")
