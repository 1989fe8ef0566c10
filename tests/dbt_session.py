"""dbt commands in one process after another: the seconds that dbt takes to be imported are spent once.

Run as a program this is that process: it reads commands, and tells how each ended and what it printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType


class DbtSession:
    """A process that runs dbt commands, each with an environment and a project of its own."""

    def __enter__(self) -> Self:
        self._output = tempfile.NamedTemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._output, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()
        self._output.close()

    def run(self, project: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command as `dbt` would; both streams come back as one."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.NamedTemporaryFile() as printed:
            command = {
                "project": str(project),
                "environment": environment,
                "arguments": arguments,
                "printed": printed.name,
            }
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            text = Path(printed.name).read_text(encoding="utf-8")
        if not answer:
            raise RuntimeError(Path(self._output.name).read_text(encoding="utf-8"))
        return subprocess.CompletedProcess(["dbt", *arguments], int(answer), text, "")


def _run(command: dict[str, Any]) -> int:
    from dbt.cli.main import dbtRunner

    os.environ.clear()
    os.environ.update(command["environment"])
    os.chdir(command["project"])
    printed = os.open(command["printed"], os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(printed, number)
    os.close(printed)
    ended = dbtRunner().invoke(["--no-use-colors", *command["arguments"]])
    if ended.exception is not None:
        sys.stdout.write(f"{ended.exception}\n")
    sys.stdout.flush()
    _close()
    return 0 if ended.success else 2 if ended.exception is not None else 1


def _close() -> None:
    """Let go of the database, which dbt would keep open for the next command."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager

    DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    sys.path = [str(Path.cwd()), *(path for path in sys.path if path != str(Path(__file__).parent))]
    answers = os.fdopen(os.dup(1), "w")
    while line := sys.stdin.readline():
        status = _run(json.loads(line))
        answers.write(f"{status}\n")
        answers.flush()
