"""`duckdb-mistral shell` as a process of its own, and in a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

from support import children_of, clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = (sys.executable, "-m", "duckdb_mistral")


def run_shell(
    environment: dict[str, str], *arguments: str, typed: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `duckdb-mistral shell` with `arguments`; `typed` goes to its standard input."""
    return subprocess.run(
        [*COMMAND, "shell", *arguments],
        env=clean_environment() | environment,
        input=typed if typed is not None else "",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


COLUMNS = 160

#: What stands in the command line of each child, once it runs a program of its own.
WORDS = {"helper": b"shell.helper", "shell": b"-unsigned"}


class Terminal:
    """`duckdb-mistral shell` in a terminal, in which a person types."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        """Start the shell; it reads and writes a pseudo-terminal, which is its controlling one."""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            [*COMMAND, "shell", *arguments],
            env=clean_environment() | environment | {"TERM": "xterm"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._unread = self.shown = ""

    def type(self, line: str) -> None:
        """Type a line and the return key."""
        os.write(self._master, line.encode() + b"\r")

    def read_until(self, pattern: str, seconds: float = 60) -> str:
        """Return what was shown up to where `pattern` is found, without colours and movements."""
        end = time.monotonic() + seconds
        shown = self._unread
        while not (found := re.search(pattern, shown)):
            assert time.monotonic() < end, f"{pattern!r} was not shown within {seconds} s: {shown!r}"
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    piece = os.read(self._master, 65536)
                except OSError:  # the other side has ended
                    piece = b""
                if b"\x1b[c" in piece:  # "what are you?": the shell waits for the answer
                    os.write(self._master, b"\x1b[?1;2c")
                assert piece, f"{pattern!r} was not shown before the shell ended: {shown!r}"
                shown += re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)", "", piece.decode(errors="replace"))
        self._unread = shown[found.end() :]
        return shown[: found.end()]

    def interrupt(self) -> None:
        """Press Ctrl-C while a statement runs: the signal goes to every process of the terminal's foreground."""
        os.killpg(self.process.pid, signal.SIGINT)

    def children(self) -> dict[str, int]:
        """Return the shell and its helper, which `duckdb-mistral shell` has started, when both are there."""
        end = time.monotonic() + 60
        while True:
            commands = {command: child for child, command in children_of(self.process.pid).items()}
            found = {
                name: child for name, word in WORDS.items() for command, child in commands.items() if word in command
            }
            if len(found) == len(WORDS):
                return found
            assert time.monotonic() < end, f"{sorted(found)} is all that runs"
            time.sleep(0.05)

    def close(self) -> None:
        """End what is still running."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._master)


@contextlib.contextmanager
def terminal(environment: dict[str, str], *arguments: str) -> Iterator[Terminal]:
    """Yield the shell in a terminal, at its first prompt."""
    shell = Terminal(environment, *arguments)
    try:
        shell.shown = shell.read_until("usage hints")
        yield shell
    finally:
        shell.close()
