"""A gate between forks and the use of SQLite files.

SQLite forbids to take an open file along into a child: the two processes would overwrite each other's transactions. So
a fork waits until no thread is using a file, and holds back those that are about to. One that goes on for too long is
left alone; the child then refuses the file.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from duckdb_mistral.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: How long a fork waits for the threads that are using a file.
FORK_SECONDS = 5.0


class ForkGate:
    """Lets threads through to files, or one thread to a fork."""

    def __init__(self) -> None:
        """Let everybody through."""
        self._open_again()
        #: The files that were in use when this process was forked.
        self._torn: set[Path] = set()

    @contextmanager
    def inside(self, path: Path) -> Iterator[None]:
        """Use a file; a thread that uses one already is not held back. Raises LedgerError if a fork took it along."""
        if path in self._torn:
            raise LedgerError(
                f"This process was forked while another thread was using the ledger {path}, which SQLite does not "
                "allow, so nothing is sent from here. Fork while no thread uses the functions, or start processes "
                "with spawn."
            )
        depth = self._depth
        with self._changed:
            if not depth:
                self._changed.wait_for(lambda: not self._closed)
            self._used[path] += 1
        self._own.depth = depth + 1
        try:
            yield
        finally:
            self._own.depth = depth
            with self._changed:
                self._used[path] -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Let nobody through, and wait until all others have come out."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._used.total() == self._depth, FORK_SECONDS)

    def open(self) -> None:
        """Let everybody through again, in the process that was forked."""
        with self._changed:
            self._closed = False
            self._changed.notify_all()

    def open_in_child(self) -> None:
        """Let the child's one thread through, except to what was in use."""
        self._torn |= {path for path, users in self._used.items() if users}
        self._open_again()

    @property
    def _depth(self) -> int:
        depth: int = getattr(self._own, "depth", 0)
        return depth

    def _open_again(self) -> None:
        self._changed = threading.Condition()
        self._closed = False
        #: How often each file is being used.
        self._used: Counter[Path] = Counter()
        #: How often by this thread.
        self._own = threading.local()
