"""The helper process: it answers calls from the extension in another process, and ends with that process.

Standard input is a socket over which that process hands over connections, one for each of its calling threads. There
is no address that anyone else could connect to.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from duckdb_mistral.errors import MistralBatchError
from duckdb_mistral.functions.session import Session
from duckdb_mistral.functions.udfs import table
from duckdb_mistral.runtime import interrupts
from duckdb_mistral.shell import protocol
from duckdb_mistral.shell.statements import by_macros, json_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: How long calls still under way when the other process ends may take to finish.
END_SECONDS = 10.0
#: How soon an interrupt takes effect.
HEED_SECONDS = 0.1
#: The function called while a statement is bound; it may download results, but never submits.
COMPILE = "mistral_internal_compile"
FUNCTIONS = {function.name: function for function in table()}
OURS = protocol.HELLO.pack(protocol.MAGIC, protocol.PROTOCOL)


def main() -> None:
    """Serve the process at the other end of standard input until it ends."""
    _hear_signals()
    helper = Helper()
    try:
        for connection in _connections(_take_standard_input()):
            helper.serve(connection)
    except SystemExit:  # terminated
        pass
    helper.close()
    sys.stderr.flush()
    # Python would wait for threads that upload or download; the next statement continues their work.
    os._exit(0)


def _hear_signals() -> None:
    """Let Ctrl-C end running calls but not this process, which learns of the terminal's end from the other process."""
    signal.signal(signal.SIGINT, lambda *_: interrupts.interrupt())
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _take_standard_input() -> socket.socket:
    """Return the socket on standard input, and leave standard input empty."""
    control = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123  a descriptor is wanted
        os.dup2(nothing.fileno(), 0)
    return control


def _connections(control: socket.socket) -> Iterator[socket.socket]:
    """Yield each connection that the other process hands over, until it ends."""
    with control:
        while True:
            hello, descriptors, _, _ = socket.recv_fds(control, protocol.HELLO.size, 1)
            if not hello:
                return
            for descriptor in descriptors:
                connection = socket.socket(fileno=descriptor)
                # Sent whichever protocol the other side speaks, so that it can compare them and report a difference.
                with suppress(OSError):  # the other side may have ended in the meantime
                    connection.sendall(OURS)
                if hello == OURS:
                    yield connection
                else:
                    connection.close()


class Helper:
    """A session for each database of the other process."""

    def __init__(self) -> None:
        """Start without sessions."""
        self._lock = threading.Lock()
        self._sessions: dict[int, Session] = {}
        self._threads: list[threading.Thread] = []

    def serve(self, connection: socket.socket) -> None:
        """Answer the calls on a connection, in its own thread, until the connection is closed."""
        thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
        self._threads = [other for other in self._threads if other.is_alive()] + [thread]
        thread.start()

    def close(self) -> None:
        """Interrupt running calls and close all sessions: unfinished statements leave nothing behind."""
        interrupts.interrupt()
        until = time.monotonic() + END_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        for database in list(self._sessions):
            self._close_database(database)

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):  # the other process was killed
            while header := protocol.receive(connection, protocol.REQUEST.size):
                name, database, size, rows = protocol.REQUEST.unpack(header)
                data = protocol.receive(connection, size)
                if data is None:
                    return
                if not name.strip(b"\0"):
                    self._close_database(database)
                    continue
                failed, parts = self._answer(name.rstrip(b"\0").decode(), database, data, rows)
                size = sum(memoryview(part).nbytes for part in parts)
                for part in (protocol.REPLY.pack(failed, rows, size), *parts):
                    connection.sendall(part)

    def _answer(self, name: str, database: int, data: bytearray, rows: int) -> tuple[bool, Sequence[Any]]:
        """Return whether a call failed, and its column or the sentence of its error."""
        try:
            session = self._session(database)
            if name == protocol.CALL:
                names, arguments = protocol.read_columns(data, ["VARCHAR", "VARCHAR"], rows)
                pairs = zip(names.to_pylist(), arguments.to_pylist(), strict=True)
                return False, protocol.write_column(_texts(_call(session, *pair) for pair in pairs))
            function = FUNCTIONS[name]
            columns = protocol.read_columns(data, function.parameters, rows)
            return False, protocol.write_column(function.vectors(session, *map(_chunked, columns)))
        except (MistralBatchError, KeyboardInterrupt) as error:
            return True, [(str(error) or interrupts.INTERRUPTED).encode()]
        except Exception as error:  # noqa: BLE001  a bug; it is reported where the statement was typed
            told = f"duckdb-mistral has a bug here: {type(error).__name__}: {error}"
            return True, [told.encode(errors="replace")]

    def _session(self, database: int) -> Session:
        with self._lock:
            if database not in self._sessions:
                self._sessions[database] = Session({})
            return self._sessions[database]

    def _close_database(self, database: int) -> None:
        with self._lock:
            session = self._sessions.pop(database, None)
        if session is not None:
            session.close()


def _call(session: Session, name: str, arguments: str) -> str | None:
    """Call a function that returns a row: text is returned as it is, everything else as JSON."""
    import pyarrow as pa

    function, given = FUNCTIONS.get(name), json.loads(arguments)
    if function is None or function.row is None or len(given) != len(function.parameters):
        raise MistralBatchError(
            f"This connection's macros are from another version of duckdb-mistral: its helper has no {name} with "
            f"{len(given)} arguments. Run the statements of duckdb-mistral extension --sql again."
        )
    call = _heeding_interrupts(function.row) if name == COMPILE else function.row
    answer = call(session, *given)
    if pa.types.is_string(function.kind):
        return None if answer is None else by_macros(str(answer)) if name == COMPILE else str(answer)
    # Arrow converts it to what DuckDB would get: numbers become times, for example.
    (value,) = pa.array([answer], function.kind).to_pylist()
    return json.dumps(json_value(value, function.kind), default=str)


def _heeding_interrupts(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return `call` so that it can be interrupted at once, even while it waits for a silent server.

    Its work is then left to a thread, which ends by itself; so use this only for calls that cost nothing.
    """

    def heeding(*given: Any) -> Any:
        interrupts.begin()
        outcome: Future[Any] = Future()

        def work() -> None:
            try:
                outcome.set_result(call(*given))
            except BaseException as error:  # noqa: BLE001  raised again by outcome.result()
                outcome.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        while not wait([outcome], HEED_SECONDS).done:
            interrupts.check()
        return outcome.result()

    return heeding


def _texts(values: Iterator[str | None]) -> Any:
    import pyarrow as pa

    return pa.array(values, pa.string())


def _chunked(column: Any) -> Any:
    """Return a column as DuckDB hands it to a function."""
    import pyarrow as pa

    return pa.chunked_array([column])


if __name__ == "__main__":
    main()
