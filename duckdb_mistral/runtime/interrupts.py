"""Ctrl-C while DuckDB runs a function on one of its own threads.

Python handles signals on the main thread, which is inside DuckDB at that time, so the waiting thread must be notified.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

INTERRUPTED = "Interrupted. What was sent goes on at the API; the same statement again continues from here."

_heard = 0
_calls = threading.local()


def listen() -> None:
    """Count interrupts from here on, and pass each to the previous handler; only the main thread can do this."""
    if threading.current_thread() is not threading.main_thread():
        return
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or getattr(before, "counts_interrupts", False):
        return

    def handler(number: int, frame: FrameType | None) -> None:
        interrupt()
        before(number, frame)

    handler.counts_interrupts = True  # type: ignore[attr-defined]
    signal.signal(signal.SIGINT, handler)


def interrupt() -> None:
    """End whatever waits in this process, as Ctrl-C does; for a server, whose calls come from elsewhere."""
    global _heard
    _heard += 1


def begin(heard: int | None = None, left: Callable[[], bool] = lambda: False) -> None:
    """Begin a call on this thread; interrupts from before do not concern it.

    A thread that works for a call on another thread passes `heard`, the value of `begun` there, and `left`, which tells
    whether its work is no longer wanted.
    """
    _calls.heard = _heard if heard is None else heard
    _calls.left = left


def begun() -> int:
    """Return the value of `heard` for a thread that works for the call on this one."""
    return getattr(_calls, "heard", _heard)


def check() -> None:
    """Raise KeyboardInterrupt if one came since the call on this thread began, or if its work is no longer wanted."""
    if _heard > getattr(_calls, "heard", _heard) or (hasattr(_calls, "left") and _calls.left()):
        begin()
        raise KeyboardInterrupt
