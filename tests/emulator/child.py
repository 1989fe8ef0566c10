"""A local batch server in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

from emulator.calling import Caller
from support import clean_environment

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping


class Child:
    """A server in a process of its own, with the interface of an Emulator that a caller needs."""

    def __init__(
        self, *arguments: str, command: str = "duckdb_mistral.emulator", environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it and wait until it serves."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command.split(), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment() | dict(environment or {}),
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def end(self, kind: signal.Signals) -> tuple[int, str]:
        """Send a signal; return the exit status and what was written on standard error."""
        self.process.send_signal(kind)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


def caller_of(child: Child) -> Caller:
    """Return a client of a server in another process."""
    server: Any = child
    return Caller(server)
