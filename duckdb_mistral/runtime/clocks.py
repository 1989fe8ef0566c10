"""The clock that measures how long ago something was: nobody can set it, and it includes time spent suspended."""

from __future__ import annotations

import sys
import time


def awake() -> float:
    """Return the seconds since some moment in the past, including those for which this machine slept."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    if sys.platform == "darwin":  # time.monotonic() stops during sleep there, and this one does not
        return time.clock_gettime(time.CLOCK_MONOTONIC)
    return time.monotonic()
