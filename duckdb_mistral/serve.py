"""The server half: a database with the functions, for DuckDB clients that have no Python.

The functions stand in an attached catalog in memory, because the sessions of clients do not see TEMP macros: a client
says `FROM mistral.mistral_batch_status()`. Nothing is written to the user's database.
"""

from __future__ import annotations

import json
import secrets
import socket
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from duckdb_mistral import interrupts
from duckdb_mistral.errors import ArgumentError, MistralBatchError
from duckdb_mistral.plugin import connect
from duckdb_mistral.quack import load_extensions, macros_of_server
from duckdb_mistral.settings import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    import duckdb

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 9494
SHORTEST_TOKEN = 4
#: What DuckDB asks whether statements may run: it calls them by their address, also while a server is being closed.
_asked: list[Callable[[str, str], bool]] = []


@dataclass(frozen=True, kw_only=True)
class Address:
    """What a client needs to know of a server."""

    uri: str
    token: str
    #: The catalog of the database, by the name that the server's own statements use.
    database: str
    #: The catalog of the functions.
    functions: str


class DatabaseServer:
    """A database that is served; a context manager that opens and closes it."""

    def __init__(
        self,
        database: str,
        *,
        host: str = LOOPBACK,
        port: int = 0,
        token: str | None = None,
        watch: Callable[[str], None] | None = None,
    ) -> None:
        """Serve `database` on `port` (a free one by default); `watch` sees every statement before it runs."""
        self._database = database
        self._host = host
        self._port = port
        self._token = secrets.token_urlsafe(24) if token is None else token
        self._watch = watch

    def __enter__(self) -> Self:
        """Open and listen; raises MistralBatchError or duckdb.Error where that cannot be."""
        if len(self._token) < SHORTEST_TOKEN:
            raise ArgumentError(
                f"The token must have at least {SHORTEST_TOKEN} characters; leave it out for a new one."
            )
        self._connection = connect(self._database)
        try:
            self.address = self._open(self._connection)
        except BaseException:
            self._connection.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.execute("FROM quack_stop($uri)", {"uri": self.address.uri})
        self._connection.close()

    def _open(self, connection: duckdb.DuckDBPyConnection) -> Address:
        load_extensions(connection)
        row = connection.execute("SELECT current_database()").fetchone()
        database = str(row[0]) if row else "memory"
        functions = "mistral" if database != "mistral" else "mistral_functions"
        connection.execute(f"ATTACH ':memory:' AS {functions}")
        for statement in macros_of_server(functions):
            connection.execute(statement)
        if self._watch is not None:
            self._authorize(connection, self._watch)
        uri = f"quack:{self._host}:{self._port or free_port(self._host)}"
        connection.execute(
            "FROM quack_serve($uri, token := $token, allow_other_hostname := $other)",
            {"uri": uri, "token": self._token, "other": not is_loopback(self._host)},
        )
        return Address(uri=uri, token=self._token, database=database, functions=functions)

    @staticmethod
    def _authorize(connection: duckdb.DuckDBPyConnection, watch: Callable[[str], None]) -> None:
        """Let `watch` see each statement at the place where Quack asks whether it may run; all may."""

        def allowed(_: str, statement: str) -> bool:
            watch(statement)
            return True

        _asked.append(allowed)
        connection.create_function(
            "mistral_internal_statement", allowed, ["VARCHAR", "VARCHAR"], "BOOLEAN", side_effects=True
        )
        connection.execute("SET GLOBAL quack_authorization_function = 'mistral_internal_statement'")


def free_port(host: str) -> int:
    """Return a port on which nothing listens at this moment."""
    with socket.create_server((host, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def run(database: str, *, host: str, port: int, token: str | None) -> None:
    """Serve until Ctrl-C: the address on standard output, the statements of clients on standard error."""
    with DatabaseServer(database, host=host, port=port, token=token, watch=_say_statement) as server:
        address = server.address
        print(f"{address.uri} {address.token}", flush=True)  # noqa: T201  the data of this command
        _say(
            f"Serving {database} until Ctrl-C, to clients that bring the token: the second word of the line above. "
            "In any DuckDB client:\n"
            f"  CREATE SECRET (TYPE quack, TOKEN '…'); ATTACH '{address.uri}' AS db;\n"
            f"  FROM db.query($$ FROM {address.functions}.mistral_batch_status() $$);"
        )
        if not is_loopback(host):
            _say(f"{host} is reached from other machines, and this protocol is not encrypted without a proxy for TLS.")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            _say("Ended. What was submitted goes on.")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201  this is the place that talks


def _say_statement(statement: str) -> None:
    _say("> " + " ".join(statement.split()))


def _serve_parent(database: str) -> None:
    """Serve the process that started this one: tell it the address, and end when it closes standard input."""
    import duckdb

    try:
        with DatabaseServer(database) as server:
            _tell(vars(server.address))
            for line in sys.stdin:
                if line.strip() == "interrupt":
                    interrupts.interrupt()
    except (MistralBatchError, duckdb.Error) as error:
        _tell({"error": str(error)})


def _tell(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)  # noqa: T201  the line that the parent reads


if __name__ == "__main__":
    _serve_parent(sys.argv[1])
