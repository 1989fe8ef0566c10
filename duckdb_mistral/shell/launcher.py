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
#: Variables that hold secrets, which the shell does not need.
SECRETS = ("MISTRAL_API_KEY", "DUCKDB_MISTRAL_LEDGER", "EMULATOR_UPSTREAM_KEY")
#: Tells the extension that a helper is there for it.
SOCKET_VARIABLE = "DUCKDB_MISTRAL_SOCKET"
#: Arguments that choose what the shell starts with, instead of ~/.duckdbrc.
BEGINNINGS = ("init", "no-init", "norc")
#: Arguments with which the shell does not read standard input.
ENDINGS = ("c", "s", "f", "no-stdin")
#: A helper that ends sooner than this, this many times in a row, is not started again.
SOON_SECONDS, TRIES = 5.0, 3


def run(arguments: Sequence[str]) -> int:
    """Open the shell with `arguments`, which are its own; return the exit status, 0 or 1.

    Raises MistralBatchError if there is no shell, if there is no extension for it, or if -safe forbids extensions.
    """
    binary = find_binary()
    extension = extension_file(binary.platform)
    options = {argument.lstrip("-") for argument in arguments if argument.startswith("-")}
    if "safe" in options:
        raise MistralBatchError(
            "With -safe the shell loads no extensions, so it cannot have the mistral functions. Leave -safe out, "
            "or start duckdb itself."
        )
    talking = sys.stdin.isatty() and options.isdisjoint(ENDINGS)
    with tempfile.TemporaryDirectory(prefix="duckdb-mistral-") as folder, HelperKeeper() as helper:
        start = Path(folder) / "start.sql"
        start.write_text("".join(statements(extension)), encoding="utf-8")
        beginning = [".read " + _quoted(start)]
        if options.isdisjoint(BEGINNINGS):
            # The shell itself would read ~/.duckdbrc first, and its `.timer on`, say, would time our statements.
            beginning = ["-no-init", *_commands([*beginning, *_of_person()])]
        else:
            beginning = _commands(beginning)
        if talking:
            sys.stderr.write(GREETING)
            sys.stderr.flush()
        status = _supervised([binary.path, "-unsigned", *beginning, *arguments], helper)
    # After an interactive session, the shell's status is that of its last statement; that is no failure of the session.
    return 0 if status == 0 or (talking and status > 0) else 1


def _of_person() -> list[str]:
    """Return the command that reads the user's own ~/.duckdbrc, if there is one."""
    file = Path("~/.duckdbrc").expanduser()
    return [".read " + _quoted(file)] if file.is_file() else []


def _commands(commands: Sequence[str]) -> list[str]:
    return [word for command in commands for word in ("-cmd", command)]


def _quoted(path: Path) -> str:
    """Return a path quoted for a command of the shell."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _supervised(command: Sequence[str], helper: HelperKeeper) -> int:
    """Run the shell to its end: Ctrl-C reaches it and the helper, and a signal that ends this process ends it too."""
    environment = environment_without(SECRETS)
    environment[SOCKET_VARIABLE] = str(helper.shells_end.fileno())
    shell: subprocess.Popen[bytes] | None = None

    def end(*_: object) -> None:
        if shell is not None:
            shell.terminate()

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),  # the shell would inherit SIG_IGN
        signal.SIGTERM: signal.signal(signal.SIGTERM, end),
        signal.SIGHUP: signal.signal(signal.SIGHUP, end),
    }
    try:
        shell = subprocess.Popen(command, env=environment, pass_fds=[helper.shells_end.fileno()])  # noqa: S603
        helper.shells_end.close()  # so that the helper notices the shell's end
        return shell.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class HelperKeeper:
    """Keeps a helper process at one end of a socket: if one is killed, another takes its place."""

    def __init__(self) -> None:
        """Create the socket; the helper's end stays open here, so that a shell's calls wait for the next helper."""
        self.shells_end, self._helpers_end = socket.socketpair()
        self._ended = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let the helper end: it notices that nobody holds the shell's end any more."""
        self._ended.set()
        self.shells_end.close()
        self._thread.join(END_SECONDS + SOON_SECONDS)
        if self._thread.is_alive() and self._process is not None:
            self._process.kill()
            self._thread.join()
        self._helpers_end.close()

    def _keep(self) -> None:
        # The helper starts with Ctrl-C blocked, and unblocks it when it is ready.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        tries = 0
        while not self._ended.is_set() and tries < TRIES:
            started = time.monotonic()
            with contextlib.suppress(OSError):
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "duckdb_mistral.shell.helper"],
                    stdin=self._helpers_end.fileno(),
                    stdout=2,  # what it prints is for the user, not for a reader of the shell's output
                )
                self._process.wait()
            tries = tries + 1 if time.monotonic() < started + SOON_SECONDS else 1
        if not self._ended.is_set():
            self._helpers_end.close()
