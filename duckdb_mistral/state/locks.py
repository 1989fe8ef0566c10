"""Locks between processes: files under `home`, which the system lets go of when their process dies."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from duckdb_mistral.runtime.retry_policy import SLEEP_STEP_SECONDS, Retry
from duckdb_mistral.state.owner import open_home, read_only, unwritable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import sqlalchemy as sa

    from duckdb_mistral.state.home import Home


@dataclass
class Turn:
    """A turn at what one of several machines does for all."""

    is_ours: bool
    #: Whether nothing came of it, so that the next one need not wait.
    in_vain: bool = False


class Locks:
    """The locks of one `home`."""

    def __init__(self, home: Home, retry: Retry) -> None:
        """Keep the lock files under `home`."""
        self._home = home
        self._retry = retry

    @contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """Hold the lock `name`, once whoever holds it has let go; an interrupt ends the waiting."""
        lock = self._lock(name)
        while not self._acquired(lock):
            self._retry.pause(SLEEP_STEP_SECONDS)
        with _released(lock):
            yield

    @contextmanager
    def trying(self, name: str) -> Iterator[bool]:
        """Hold the lock `name` if it is free; yields whether it is held."""
        lock = self._lock(name)
        if not self._acquired(lock):
            yield False
            return
        with _released(lock):
            yield True

    def held(self, name: str) -> Callable[[], None] | None:
        """Take the lock `name` if it is free, and return what lets go of it; None where it is taken."""
        lock = self._lock(name)
        return lock.release if self._acquired(lock) else None

    @contextmanager
    def turn(self, name: str, seconds: float) -> Iterator[Turn]:
        """Yield a turn at what one machine at a time does for all; it is ours if none had it for so many seconds."""
        del name, seconds  # there is one machine
        yield Turn(is_ours=True)

    def conditions(self, name: str) -> list[sa.ColumnElement[bool]]:
        """Return what a statement of the ledger asks for, so that it does nothing if the lock `name` was lost."""
        del name  # the system lets nobody else have it as long as this process lives
        return []

    def keep(self, connection: sa.Connection, name: str) -> None:
        """Let nobody take the lock `name` until a transaction has ended; raise LedgerError if it was lost before."""

    def check(self, name: str) -> None:
        """Raise LedgerError if a lock that this process has taken was lost."""

    def _lock(self, name: str) -> FileLock:
        if not open_home(self._home.path):
            raise read_only(self._home.path)
        try:
            self._home.locks.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise unwritable(self._home.path, str(error.strerror)) from error
        return FileLock(self._home.lock(name), mode=0o600, thread_local=False)

    def _acquired(self, lock: FileLock) -> bool:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        except OSError as error:
            raise unwritable(self._home.path, str(error.strerror)) from error
        return True


@contextmanager
def _released(lock: FileLock) -> Iterator[None]:
    try:
        yield
    finally:
        lock.release()
