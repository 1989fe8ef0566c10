"""A long call whose outcome is polled, so that DuckDB can end the statement in between.

DuckDB cannot tell a function that its query was interrupted. But it looks between two calls of one.
"""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Generic, TypeVar

from duckdb_mistral.runtime import interrupts

if TYPE_CHECKING:
    from collections.abc import Callable

Outcome = TypeVar("Outcome")

#: How long the calls of a statement may take, before DuckDB looks again.
SLICE_SECONDS = 0.25
#: A call that nobody has asked after for so long belongs to a statement that was interrupted.
LEFT_SECONDS = 5.0
#: How long one that is interrupted may take to show its end; it may be waiting for a server.
END_SECONDS = 1.0


class Waiting(Generic[Outcome]):
    """A call on a thread of its own, which is interrupted once nobody asks after it."""

    def __init__(self, call: Callable[[], Outcome]) -> None:
        """Begin the call."""
        self._future: Future[Outcome] = Future()
        self._asked_at = time.monotonic()
        threading.Thread(target=self._work, args=(call, interrupts.begun()), daemon=True).start()

    def has_ended(self, seconds: float = SLICE_SECONDS) -> bool:
        """Tell whether the call has ended, after a moment in which it may; raises KeyboardInterrupt on Ctrl-C."""
        self._asked_at = time.monotonic()
        ended = bool(wait([self._future], seconds).done)
        if not ended:
            try:
                interrupts.check()
            except KeyboardInterrupt:
                self.leave()
                raise
        self._asked_at = time.monotonic()
        return ended

    def leave(self) -> None:
        """Interrupt the call, and let it show its end before others go on."""
        self._asked_at = -math.inf
        wait([self._future], END_SECONDS)

    def outcome(self) -> Outcome:
        """Return what the call has returned, or raise what it has raised."""
        return self._future.result()

    @property
    def left(self) -> bool:
        """Whether nobody is asking now."""
        return time.monotonic() > self._asked_at + LEFT_SECONDS

    def _work(self, call: Callable[[], Outcome], heard: int) -> None:
        interrupts.begin(heard, lambda: self.left)
        try:
            self._future.set_result(call())
        except BaseException as error:  # noqa: BLE001  it is raised where the outcome is asked for
            self._future.set_exception(error)
