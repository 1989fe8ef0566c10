"""The official duckdb shell with the functions in it: a server of its own, and the shell as its client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duckdb_mistral.errors import MistralBatchError
from duckdb_mistral.quack import load_statements, macros_of_client, shell_binary

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

POLL_SECONDS = 0.2
STOP_SECONDS = 10.0
#: Catalogs that the shell has itself.
TAKEN = ("memory", "system", "temp")

GREETING = """\
The mistral functions are here: FROM mistral_batch_submit('staging'); FROM mistral_batch_status(); and so on.
Tables that you create are in {database}, where mistral_batch_submit sees them. A TEMP table lives in this shell, and \
it does not; leave TEMP out.
An argument cannot be a subquery. CREATE TABLE and INSERT from a table of {database} are refused by DuckDB's \
protocol as it is now; make a view, or let {database} do it:
  CALL {alias}.query($$ CREATE TABLE answers AS
    FROM staging JOIN {functions}.mistral_batch_results('…') USING (custom_id) $$);
"""


def run(arguments: Sequence[str]) -> int:
    """Open the shell on the database that `arguments` begin with, or one in memory; return the exit status, 0 or 1.

    The other arguments are the shell's own. Raises MistralBatchError where the shell cannot be had, where the database
    cannot be opened, and where its server ends before the shell does.
    """
    named = bool(arguments) and not arguments[0].startswith("-")
    database = arguments[0] if named else ":memory:"
    others = list(arguments[named:])
    binary = shell_binary()
    with _server(database) as (server, address), tempfile.TemporaryDirectory(prefix="duckdb-mistral-") as folder:
        alias = "db" if address["database"] in (*TAKEN, address["functions"]) else address["database"]
        start = Path(folder) / "start.sql"
        start.touch(mode=0o600)
        start.write_text(_start_statements(address, alias), encoding="utf-8")
        talking = sys.stdin.isatty() and not others
        if talking:
            sys.stderr.write(GREETING.format(database=database, alias=alias, functions=address["functions"]))
        # The key stays with the server: the shell has no use for it.
        environment = {name: value for name, value in os.environ.items() if name != "MISTRAL_API_KEY"}
        shell = subprocess.Popen([str(binary), "-cmd", f".read {start}", *others], env=environment)  # noqa: S603
        status = _supervised(shell, server)
        # Of a person's session, the shell tells how its last statement went; that is no failure of the session.
        return 0 if status == 0 or (talking and status > 0) else 1


def _start_statements(address: dict[str, Any], alias: str) -> str:
    import duckdb

    with duckdb.connect(":memory:") as connection:
        loads = load_statements(connection)
    # One statement prints a row. After `.output` the shell takes no more heed of a terminal's width, and after `.once`
    # it colours what goes to a file.
    hiding, shown = ([f".once {os.devnull}"], []) if sys.stdout.isatty() else ([f".output {os.devnull}"], [".output"])
    quoted = '"' + alias.replace('"', '""') + '"'
    statements = [
        *loads,
        *hiding,
        f"CREATE SECRET (TYPE quack, TOKEN '{address['token'].replace(chr(39), chr(39) * 2)}');",
        *shown,
        f"ATTACH '{address['uri']}' AS {quoted};",
        f"USE {quoted};",
        *macros_of_client(address["uri"], address["functions"]),
    ]
    return "\n".join([*statements, ""])


@contextmanager
def _server(database: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Yield a process that serves `database`, and its address; it ends with this process, however that ends."""
    server = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "duckdb_mistral.serve", database],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process, which passes it on
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        line = server.stdout.readline()
        if not line:
            raise MistralBatchError(f"The process that opens {database} for the shell ended before it was ready.")
        address = json.loads(line)
        if "error" in address:
            raise MistralBatchError(address["error"])
        yield server, address
    finally:
        server.stdin.close()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        server.stdout.close()


def _supervised(shell: subprocess.Popen[bytes], server: subprocess.Popen[str]) -> int:
    """Wait for the shell; pass Ctrl-C on to the server, where a wait runs, and end the shell when the server ends."""
    assert server.stdin is not None
    commands = server.stdin

    def interrupt(*_: object) -> None:
        if server.poll() is None:
            commands.write("interrupt\n")
            commands.flush()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        while True:
            try:
                return shell.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if server.poll() is not None:
                    shell.terminate()
                    shell.wait()
                    raise MistralBatchError(
                        "The process that held the database open has ended, so the shell was ended too. What was "
                        "submitted goes on: FROM mistral_batch_status() in a new shell tells how far it is."
                    ) from None
    finally:
        signal.signal(signal.SIGINT, before)
        if shell.poll() is None:
            shell.terminate()
            shell.wait()
