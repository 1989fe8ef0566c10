"""The spools that the running submits of one database fill."""

from __future__ import annotations

import itertools
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.plan import Plan
    from duckdb_mistral.requests.spool import Spool

#: Spools of statements that failed, whose connections are gone.
_left: SimpleQueue[Spool] = SimpleQueue()


class OpenSpool(NamedTuple):
    """A spool that a running statement fills, with what it is submitted with, and which statement of whose it is."""

    context: Context
    spool: Spool
    plan: Plan
    connection: int
    query: int


class OpenSpools:
    """Spools by their tokens: DuckDB hands the token over with every row, so it is a number."""

    def __init__(self) -> None:
        """Have none yet."""
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._opened: dict[int, OpenSpool] = {}

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._opened)

    def add(self, opened: OpenSpool) -> int:
        """Keep a spool until it is taken; return its token."""
        with self._lock:
            token = next(self._numbers)
            self._opened[token] = opened
        return token

    def spool(self, token: int) -> Spool | None:
        """Return an open spool, None where its submit is over."""
        opened = self._opened.get(token)
        return None if opened is None else opened.spool

    def take(self, token: int) -> OpenSpool | None:
        """Return an open spool and keep it no longer; None where its submit is over."""
        with self._lock:
            return self._opened.pop(token, None)

    def discard_earlier(self, connection: int, query: int) -> None:
        """Remove the spools that other queries of a connection have left, or of connections that are gone.

        A connection runs one query at a time, so they are of statements that failed or were interrupted.
        """
        discard_left()
        with self._lock:
            left = [
                token
                for token, opened in self._opened.items()
                if opened.connection == connection and opened.query != query
            ]
            earlier = [self._opened.pop(token) for token in left]
        for opened in earlier:
            opened.spool.discard()

    def discard_all(self) -> None:
        """Remove the spools of all statements."""
        with self._lock:
            while self._opened:
                self._opened.popitem()[1].spool.discard()

    def leave(self) -> None:
        """Leave all to whoever discards next; this waits for nothing, and does nothing if another thread is at work."""
        if self._lock.acquire(blocking=False):
            try:
                while self._opened:
                    _left.put(self._opened.popitem()[1].spool)
            finally:
                self._lock.release()


def discard_left() -> None:
    """Remove the spools that were left."""
    while True:
        try:
            spool = _left.get_nowait()
        except Empty:
            return
        spool.discard()
