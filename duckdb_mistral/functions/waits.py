"""The waits that the statements of one database are in."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING

from duckdb_mistral.errors import MistralBatchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from duckdb_mistral.functions.waiting import Waiting
    from duckdb_mistral.jobs.job import Job


class Waits:
    """Waits by the number that a statement asks after them by."""

    def __init__(self) -> None:
        """Have none yet."""
        #: Held by the one that shows its progress: their bars share a terminal.
        self.showing = threading.Lock()
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waits: dict[int, Waiting[list[Job]]] = {}

    def begin(self, call: Callable[[], list[Job]]) -> int:
        """Begin a wait; return its number."""
        from duckdb_mistral.functions.waiting import Waiting

        with self._lock:
            self._waits = {key: other for key, other in self._waits.items() if not other.left}
            number = next(self._numbers)
            self._waits[number] = Waiting(call)
        return number

    def outcome(self, number: int) -> list[Job] | None:
        """Return the jobs of a wait that has ended, or raise what it has raised; None while it goes on.

        All waits together take no longer for it than one would.
        """
        from duckdb_mistral.functions.waiting import SLICE_SECONDS

        waiting = self._waits.get(number)
        if waiting is None:
            raise MistralBatchError("The process that waited has ended. The jobs run on; wait again.")
        if not waiting.has_ended(SLICE_SECONDS / max(1, len(self._waits))):
            return None
        self._waits.pop(number, None)
        return waiting.outcome()

    def leave(self) -> None:
        """Interrupt every wait."""
        with self._lock:
            waits, self._waits = list(self._waits.values()), {}
        for waiting in waits:
            waiting.leave()
