"""The only retry policy, for calls that cost nothing, and the only place that sleeps."""

from __future__ import annotations

import math
import random
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from duckdb_mistral.errors import ApiError, LimitError, UnreachableError
from duckdb_mistral.runtime import interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Answer = TypeVar("Answer")

#: How long to try an address that accepts no connections.
NOBODY_SECONDS = 10.0
#: Short enough that an interrupt is felt at once.
SLEEP_STEP_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Repeat a read until it is answered or `budget_seconds` have passed."""

    budget_seconds: float = 60.0
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 20.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    #: The moment, by `clock`, after which each thread repeats no more reads.
    _limits: threading.local = field(default_factory=threading.local, init=False, repr=False, compare=False)

    def read(self, call: Callable[[], Answer]) -> Answer:
        """Return what `call` returns; it must be free of side effects at the server.

        Raises the last error when the budget is used up; an error that repeating cannot fix is raised at once.
        """
        return self._repeat(call, is_passing)

    def refused(self, call: Callable[[], Answer]) -> Answer:
        """Return what `call` returns, repeated only if a limit refused it, because then it had no effect.

        Raises as `read` does.
        """
        return self._repeat(call, lambda error: isinstance(error, LimitError))

    def _repeat(self, call: Callable[[], Answer], again_after: Callable[[ApiError], bool]) -> Answer:
        started = self.clock()
        pauses = self._pauses()
        while True:
            try:
                return call()
            except ApiError as error:
                # Without a pause of our own, a server that asks for none would be asked without a break.
                pause = min(max(next(pauses), error.retry_after or 0.0), self.longest_pause_seconds)
                again = self.clock() + pause
                if not again_after(error) or again > min(started + self._budget(error), self._limit):
                    raise
                self.pause(pause)

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Repeat no read of this thread later than `seconds` from now; each is still tried once."""
        before = self._limit
        self._limits.until = min(before, self.clock() + seconds)
        try:
            yield
        finally:
            self._limits.until = before

    def pause(self, seconds: float) -> None:
        """Sleep in short steps, so that Ctrl-C ends a query within a moment."""
        interrupts.check()
        until = self.clock() + seconds
        while (left := until - self.clock()) > 0:
            self.sleep(min(left, SLEEP_STEP_SECONDS))
            interrupts.check()

    @property
    def left(self) -> float:
        """For how many seconds more this thread may repeat its reads: those of `within`, or without end."""
        return max(0.0, self._limit - self.clock())

    @property
    def _limit(self) -> float:
        return getattr(self._limits, "until", math.inf)

    def _budget(self, error: ApiError) -> float:
        """Return how long to go on after an error; an address where nobody listens is usually a wrong one."""
        nobody_there = isinstance(error, UnreachableError) and not error.sent
        return min(self.budget_seconds, NOBODY_SECONDS) if nobody_there else self.budget_seconds

    def _pauses(self) -> Iterator[float]:
        pause = self.first_pause_seconds
        while True:
            yield pause * random.uniform(0.75, 1.25)  # noqa: S311  to spread load, not for secrecy
            pause = min(pause * 2, self.longest_pause_seconds)


def is_passing(error: ApiError) -> bool:
    """Tell whether the same read may be answered a little later."""
    if isinstance(error, UnreachableError | LimitError):
        return True
    return error.status_code is not None and error.status_code >= 500
