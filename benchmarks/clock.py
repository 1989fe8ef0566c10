"""The figures of one contender: seconds by step, and memory."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.memory import PeakMemory

if TYPE_CHECKING:
    from collections.abc import Iterator


class Clock:
    """The seconds of each step of a contender, and the memory of them all."""

    def __init__(self) -> None:
        """Begin to count the memory."""
        self.seconds: dict[str, float] = {}
        #: Of all threads; what else runs on the machine changes it less.
        self.processor_seconds = 0.0
        self.figures: dict[str, Any] = {}
        self._memory = PeakMemory()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count the time of a block."""
        started, processor = time.perf_counter(), time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
        self.processor_seconds += time.process_time() - processor

    def leave_out(self, name: str, seconds: float) -> None:
        """Take waiting out of a step."""
        self.seconds[name] -= seconds

    @property
    def added_bytes(self) -> int:
        """The most memory that was added until now."""
        return self._memory.added_bytes

    def forget_peak(self) -> None:
        """Count the peak anew, from what was held when the clock was made."""
        self._memory.forget()

    def told(self) -> str:
        """Return the figures as JSON."""
        return json.dumps(
            {
                "seconds": self.seconds,
                "processor_seconds": self.processor_seconds,
                "peak_bytes": self._memory.peak_bytes,
                "added_bytes": self._memory.added_bytes,
                "figures": self.figures,
            }
        )


class Told(Clock):
    """A clock that was read before the last checks were made."""

    def __init__(self, told: str) -> None:
        """Keep what was read."""
        self._told = told

    def told(self) -> str:
        """Return what was read."""
        return self._told
