"""Locks between processes: files under `home`, which the system lets go of when their process dies."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from duckdb_mistral.runtime.retry_policy import SLEEP_STEP_SECONDS, Retry
from duckdb_mistral.state.home import open_home, read_only, unwritable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Locks:
    """The locks of one `home`."""

    def __init__(self, home: Path, retry: Retry) -> None:
        """Keep the lock files in `home`/locks."""
        self._directory = home / "locks"
        self._retry = retry

    @contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """Hold the lock `name`, once whoever holds it has let go; an interrupt ends the waiting."""
        lock = self._lock(name)
        while not _acquired(lock):
            self._retry.pause(SLEEP_STEP_SECONDS)
        with _released(lock):
            yield

    @contextmanager
    def trying(self, name: str) -> Iterator[bool]:
        """Hold the lock `name` if it is free; yields whether it is held."""
        lock = self._lock(name)
        if not _acquired(lock):
            yield False
            return
        with _released(lock):
            yield True

    def held(self, name: str) -> Callable[[], None] | None:
        """Take the lock `name` if it is free, and return what lets go of it; None where it is taken."""
        lock = self._lock(name)
        return lock.release if _acquired(lock) else None

    def _lock(self, name: str) -> FileLock:
        if not open_home(self._directory.parent):
            raise read_only(self._directory.parent)
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise unwritable(self._directory.parent, str(error.strerror)) from error
        return FileLock(self._directory / f"{name}.lock", mode=0o600, thread_local=False)


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    except OSError as error:
        raise unwritable(Path(lock.lock_file).parent.parent, str(error.strerror)) from error
    return True


@contextmanager
def _released(lock: FileLock) -> Iterator[None]:
    try:
        yield
    finally:
        lock.release()
