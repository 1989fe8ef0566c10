"""Points at which a test can kill or stop this process, or fill its disk; otherwise they do nothing."""

from __future__ import annotations

import errno
import os
import signal
import threading

from duckdb_mistral.settings import variable

#: `name`, `name:N` or `*:N`: the process kills itself when it passes that point, or any point, for the Nth time.
#: `stop:name:N` and `stop:*:N`: it is stopped there instead, until it receives SIGCONT.
#: `full:name:N` and `full:*:N`: the disk is full from then on, at the points that write.
VARIABLE = "DUCKDB_MISTRAL_FAILPOINT"

_passed: dict[str, int] = {}
_counting = threading.Lock()


def failpoint(name: str, *, writes: bool = False) -> None:
    """If asked to, kill or stop this process here or, at a point that `writes`, raise a full disk's OSError."""
    asked = variable(VARIABLE)
    if not asked:
        return
    full = asked.startswith("full:")
    if full and not writes:
        return
    wanted, _, count = asked.removeprefix("full:").removeprefix("stop:").partition(":")
    with _counting:
        _passed[name] = _passed.get(name, 0) + 1
        passed = sum(_passed.values()) if wanted == "*" else _passed[name]
    if wanted not in (name, "*"):
        return
    if full and passed >= int(count or 1):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if passed == int(count or 1):
        _end_here("SIGSTOP" if asked.startswith("stop:") else "SIGKILL")


def _end_here(name: str) -> None:
    """Send a signal to this very thread: if another thread received it, this one could still go a step further."""
    number = getattr(signal, name, signal.SIGTERM)
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.get_ident(), number)
    else:
        os.kill(os.getpid(), number)
