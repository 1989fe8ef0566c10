"""Points at which a test can end this process as a power cut would; without the variable they do nothing."""

from __future__ import annotations

import os
import signal

#: `name` or `name:N`: the process kills itself when it comes by that point for the Nth time.
VARIABLE = "DUCKDB_MISTRAL_FAILPOINT"

_passed: dict[str, int] = {}


def failpoint(name: str) -> None:
    """Kill this process here, if the environment asks for this point."""
    asked = os.environ.get(VARIABLE)
    if not asked:
        return
    wanted, _, count = asked.partition(":")
    _passed[name] = _passed.get(name, 0) + 1
    if wanted in (name, "*") and _passed_count(wanted, name) == int(count or 1):
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def _passed_count(wanted: str, name: str) -> int:
    """Count this point's passes, or with `*` those of all points."""
    return sum(_passed.values()) if wanted == "*" else _passed[name]
