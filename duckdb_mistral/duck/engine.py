"""Our own DuckDB engines, for work on our own files."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import duckdb

from duckdb_mistral.errors import LedgerError
from duckdb_mistral.runtime import interrupts
from duckdb_mistral.runtime.forks import is_inherited, leave_to_parent

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

    def open(self) -> None:
        """Open the engine, unless it is open."""
        if not self.is_open:
            self._engine = _connect("")

    @property
    def is_open(self) -> bool:
        """Whether there is an engine already."""
        return self._engine is not None

    def close(self) -> None:
        """Close the engine; the next task opens another."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    @property
    def is_inherited(self) -> bool:
        """Whether the parent of this process has opened the engine, so that it does not work here."""
        return self._engine is not None and is_inherited(self._engine)

    def _spilling_to(self, directory: str) -> duckdb.DuckDBPyConnection:
        if self._engine is not None:
            try:
                self._engine.execute("SET temp_directory = $directory", {"directory": directory})
            except duckdb.Error:  # the engine has spilled, so it keeps its directory; or it has failed for good
                self.close()
            else:
                return self._engine
        self._engine = _connect(directory)
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

    def open_ahead(self) -> None:
        """Open the engine on a thread of its own, while the caller waits for something else."""
        if self.is_idle and not self._engines.is_open:
            threading.Thread(target=self._open, name="duckdb_mistral engine").start()

    def _open(self) -> None:
        with self._taken, suppress(duckdb.Error, MemoryError):  # the task that needs it says so
            self._engines.open()

    def close(self) -> None:
        """Close the engine, unless, after an interrupt, a thread is still working with it."""
        if self._taken.acquire(blocking=False):
            try:
                self._engines.close()
            finally:
                self._taken.release()

    @property
    def is_idle(self) -> bool:
        """Whether no thread is working with it, and the process that opened it is this one."""
        return not self._taken.locked() and not self._engines.is_inherited


class SpareEngine:
    """Keeps one idle engine from one call to the next: opening one takes longer than the work of a small call."""

    def __init__(self) -> None:
        """Have none yet."""
        self._spare: SharedEngine | None = None
        self._lock = threading.Lock()

    def take(self) -> SharedEngine:
        """Return the engine that is kept, or a new one: nobody else has it."""
        with self._lock:
            spare, self._spare = self._spare, None
        return spare if spare is not None and spare.is_idle else SharedEngine()

    def give_back(self, engine: SharedEngine, *, keep: bool) -> None:
        """Keep an engine that was taken, or close it: one that did large work may hold on to the memory."""
        with self._lock:
            if keep and engine.is_idle and self._spare is None:
                self._spare = engine
                return
        engine.close()

    def close(self) -> None:
        """Close what is kept."""
        with self._lock:
            spare, self._spare = self._spare, None
        if spare is not None and spare.is_idle:
            spare.close()


@contextmanager
def own_engine(spill: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open our own engine for a single task."""
    engines = Engines()
    try:
        with engines.one(spill) as connection:
            yield connection
    finally:
        engines.close()


def _connect(directory: str) -> duckdb.DuckDBPyConnection:
    """Return a new engine that spills to a directory; to none if that is empty."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "temp_directory": directory,
        "autoinstall_known_extensions": False,
    }
    engine = duckdb.connect(":memory:", config=config)
    leave_to_parent(engine)
    return engine


def keep_build_sides(engine: duckdb.DuckDBPyConnection) -> None:
    """Make joins hold their second side in memory, however large DuckDB thinks it is.

    Otherwise it would hold the lines of requests, whose number it guesses from the size of their file.
    """
    engine.execute("SET disabled_optimizers = 'build_side_probe_side,join_order'")
