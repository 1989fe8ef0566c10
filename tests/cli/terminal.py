"""The command line as a person runs it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from support import clean_environment, environment_of, run_forked

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator

PROMPTS = """
CREATE TABLE tickets AS SELECT range AS id, 'ticket ' || range AS body FROM range(3);
SELECT id AS custom_id, body AS prompt FROM tickets;
"""


class Terminal:
    """A shell in a directory of its own, whose environment leads to a local server."""

    def __init__(self, emulator: Emulator, directory: Path) -> None:
        """Open the shell; nothing is run yet."""
        self.forked = True
        self.emulator = emulator
        self.directory = directory
        self.environment = clean_environment() | environment_of(emulator, directory / "home")

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `duckdb-mistral` with these arguments, in a new process or a forked one."""
        if self.forked:
            code = "from duckdb_mistral.cli.commands import main\nmain()"
            return run_forked(code, self.environment | environment, *arguments, directory=self.directory)
        return subprocess.run(
            [sys.executable, "-m", "duckdb_mistral", *arguments],
            env=self.environment | environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
