"""The clock by which this process measures how long ago something was: no one sets it, and a suspend counts."""

from __future__ import annotations

import sys
import time


def awake() -> float:
    """Return seconds since some moment in the past, those that this machine has slept among them."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    if sys.platform == "darwin":  # where time.monotonic() stands still meanwhile, and this one does not
        return time.clock_gettime(time.CLOCK_MONOTONIC)
    return time.monotonic()
