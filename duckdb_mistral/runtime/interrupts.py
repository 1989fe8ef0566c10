"""Ctrl-C while DuckDB runs a function on a thread of its own.

Python hears signals on the main thread, which sits in DuckDB meanwhile; the thread that waits has to be told.
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
    """Count interrupts from here on, and hand each to whoever handled them before; only the main thread can."""
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
    """End what waits in this process, as Ctrl-C does; for a server, whose calls are none of its own doing."""
    global _heard
    _heard += 1


def begin(heard: int | None = None, left: Callable[[], bool] = lambda: False) -> None:
    """Begin a call on this thread: interrupts before it are not its own.

    A thread that works for the call on another one gives `heard`, which is `begun` of that one, and `left`, which tells
    whether nobody wants its work any more.
    """
    _calls.heard = _heard if heard is None else heard
    _calls.left = left


def begun() -> int:
    """Return what a thread begins with that works for the call on this one."""
    return getattr(_calls, "heard", _heard)


def check() -> None:
    """Raise KeyboardInterrupt where one came since the call on this thread began, or its work was left."""
    if _heard > getattr(_calls, "heard", _heard) or (hasattr(_calls, "left") and _calls.left()):
        begin()
        raise KeyboardInterrupt
