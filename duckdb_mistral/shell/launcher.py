"""`duckdb-mistral shell`: the official duckdb shell with the functions in it, and the helper process behind it."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from duckdb_mistral.errors import MistralBatchError
from duckdb_mistral.settings import environment_without
from duckdb_mistral.shell.binary import find_binary
from duckdb_mistral.shell.extension import extension_file
from duckdb_mistral.shell.helper import END_SECONDS
from duckdb_mistral.shell.statements import statements

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

GREETING = (
    "The mistral functions are here: FROM mistral_batch_submit('staging'); FROM mistral_batch_status(); and so on.\n"
)
#: What the helper alone needs to know; the shell has no use for it.
SECRETS = ("MISTRAL_API_KEY", "DUCKDB_MISTRAL_LEDGER")
#: By this the extension knows that a helper is there for it.
SOCKET_VARIABLE = "DUCKDB_MISTRAL_SOCKET"
#: Arguments by which a person chooses what the shell begins with, in place of ~/.duckdbrc.
BEGINNINGS = ("init", "no-init", "norc")
#: Arguments after which the shell reads no standard input.
ENDINGS = ("c", "s", "f", "no-stdin")
#: A helper that ends sooner than this, so many times in a row, would end again.
SOON_SECONDS, TRIES = 5.0, 3


def run(arguments: Sequence[str]) -> int:
    """Open the shell with `arguments`, which are its own; return the exit status, 0 or 1.

    Raises MistralBatchError where there is no shell, no extension for it, or -safe allows none.
    """
    binary = find_binary()
    extension = extension_file(binary.platform)
    options = {argument.lstrip("-") for argument in arguments if argument.startswith("-")}
    if "safe" in options:
        raise MistralBatchError(
            "With -safe the shell loads no extension, so the mistral functions cannot be in it. Leave -safe out, "
            "or start duckdb itself."
        )
    talking = sys.stdin.isatty() and options.isdisjoint(ENDINGS)
    with tempfile.TemporaryDirectory(prefix="duckdb-mistral-") as folder, HelperKeeper() as helper:
        start = Path(folder) / "start.sql"
        start.write_text("".join(statements(extension)), encoding="utf-8")
        beginning = [".read " + _quoted(start)]
        if options.isdisjoint(BEGINNINGS):
            # Read by the shell itself, it would come first, and its `.timer on`, say, would time our statements.
            beginning = ["-no-init", *_commands([*beginning, *_of_person()])]
        else:
            beginning = _commands(beginning)
        if talking:
            sys.stderr.write(GREETING)
            sys.stderr.flush()
        status = _supervised([binary.path, "-unsigned", *beginning, *arguments], helper)
    # Of a person's session, the shell tells how its last statement went; that is no failure of the session.
    return 0 if status == 0 or (talking and status > 0) else 1


def _of_person() -> list[str]:
    """Return the command that reads the person's own ~/.duckdbrc, if there is one."""
    file = Path("~/.duckdbrc").expanduser()
    return [".read " + _quoted(file)] if file.is_file() else []


def _commands(commands: Sequence[str]) -> list[str]:
    return [word for command in commands for word in ("-cmd", command)]


def _quoted(path: Path) -> str:
    """Return a path as a word of a command of the shell."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _supervised(command: Sequence[str], helper: HelperKeeper) -> int:
    """Run the shell to its end: Ctrl-C is for it and the helper, and what ends this process ends it."""
    environment = environment_without(SECRETS)
    environment[SOCKET_VARIABLE] = str(helper.shells_end.fileno())
    shell: subprocess.Popen[bytes] | None = None

    def end(*_: object) -> None:
        if shell is not None:
            shell.terminate()

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),  # ignored, it would be ignored by the shell too
        signal.SIGTERM: signal.signal(signal.SIGTERM, end),
        signal.SIGHUP: signal.signal(signal.SIGHUP, end),
    }
    try:
        shell = subprocess.Popen(command, env=environment, pass_fds=[helper.shells_end.fileno()])  # noqa: S603
        helper.shells_end.close()  # so that the helper hears of the shell's end
        return shell.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class HelperKeeper:
    """Keeps a helper process at one end of a socket: where one was killed, another takes its place."""

    def __init__(self) -> None:
        """Make the socket; the helper's end stays open here, so that a shell's calls wait there for the next helper."""
        self.shells_end, self._helpers_end = socket.socketpair()
        self._ended = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let the helper end: it hears that nobody holds the shell's end any more."""
        self._ended.set()
        self.shells_end.close()
        self._thread.join(END_SECONDS + SOON_SECONDS)
        if self._thread.is_alive() and self._process is not None:
            self._process.kill()
            self._thread.join()
        self._helpers_end.close()

    def _keep(self) -> None:
        # The helper is born with Ctrl-C held back, and hears it when it is ready.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        tries = 0
        while not self._ended.is_set() and tries < TRIES:
            started = time.monotonic()
            with contextlib.suppress(OSError):
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "duckdb_mistral.shell.helper"],
                    stdin=self._helpers_end.fileno(),
                    stdout=2,  # what it prints is for the person, not for who reads the shell's output
                )
                self._process.wait()
            tries = tries + 1 if time.monotonic() < started + SOON_SECONDS else 1
        if not self._ended.is_set():
            self._helpers_end.close()
