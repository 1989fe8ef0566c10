"""Registering: the functions on a database, and the TEMP macros that people call on each connection."""

from __future__ import annotations

import atexit
import threading
import weakref
from contextlib import closing
from typing import TYPE_CHECKING, Any

from duckdb_mistral.errors import ArgumentError
from duckdb_mistral.templates import macros

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb

    from duckdb_mistral.functions import Functions

#: DuckDB keeps the functions of an open database; what it has let go of is not kept here either.
_databases: weakref.WeakValueDictionary[str, Functions] = weakref.WeakValueDictionary()
_connections: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()
#: Threads that register cursors of one database at once make its functions once.
_registering = threading.Lock()


def register(con: duckdb.DuckDBPyConnection | None = None, **settings: Any) -> None:
    """Give a DuckDB connection the mistral functions.

    `con` is a connection or a cursor; without it, the default connection, which `duckdb.sql` uses. Calling it again
    changes nothing but the settings that are given. No network connection is opened, no key is read, and nothing is
    written to the user's database: the functions are TEMP.

    Settings (see the README): api_key, server_url, home, model, max_requests_per_job, max_bytes_per_file,
    max_pending_requests, reconcile_seconds, poll_seconds, deadline_seconds, prices. What is not given comes from the
    environment at each call.

    Raises SettingError for a setting that does not exist or cannot be used, ArgumentError for what is no connection and
    for the first call on a database in a transaction.
    """
    import duckdb

    connection = duckdb.default_connection() if con is None else con
    if not hasattr(connection, "create_function"):
        raise ArgumentError(
            f"register() takes a DuckDB connection, not {connection!r}. duckdb_mistral.connect() takes the name of a "
            "database, and returns a connection that has the functions."
        )
    with _registering:
        functions = _functions_of(connection)
        if functions is None:
            _create_functions(connection, settings)
        else:
            functions.session.configure(settings)
    for statements in macros():
        connection.execute(statements)
    _connections.add(connection)


def connect(
    database: str = ":memory:", *, settings: dict[str, Any] | None = None, **duckdb_arguments: Any
) -> duckdb.DuckDBPyConnection:
    """Return `duckdb.connect(database, **duckdb_arguments)` with the functions registered.

    Raises SettingError for `settings` that cannot be used; the connection is then closed again.
    """
    import duckdb

    connection = duckdb.connect(database, **duckdb_arguments)
    try:
        register(connection, **(settings or {}))
    except BaseException:
        connection.close()
        raise
    return connection


def on_trouble(connection: duckdb.DuckDBPyConnection, listener: Callable[[str], object]) -> None:
    """Let `listener` hear why the API could not be asked for jobs that a status shows all the same."""
    functions = _functions_of(connection)
    if functions is not None:
        functions.session.on_trouble = listener


def _functions_of(connection: duckdb.DuckDBPyConnection) -> Functions | None:
    """Return what an earlier register on the same database made, or None."""
    import duckdb

    # Asked beside the connection: in a transaction of the caller's, a statement that fails would undo it.
    with closing(connection.cursor()) as cursor:
        try:
            ((name,),) = cursor.execute("SELECT system.main.mistral_internal_session(true)").fetchall()
        # Where there is no such function, DuckDB looks for a macro of the caller's after all.
        except (duckdb.CatalogException, duckdb.BinderException):
            return None
    return _databases.get(name)


def _create_functions(connection: duckdb.DuckDBPyConnection, settings: dict[str, Any]) -> None:
    from duckdb_mistral.functions import Functions
    from duckdb_mistral.session import Session

    if _in_transaction(connection):
        raise ArgumentError(
            "register() was called in a transaction, whose ROLLBACK would leave half of the functions. Nothing was "
            "changed. Register before BEGIN, or after COMMIT."
        )
    functions = Functions(Session(settings))
    functions.create(connection)
    _databases[functions.name] = functions


def _in_transaction(connection: duckdb.DuckDBPyConnection) -> bool:
    """Tell whether a connection is in a transaction of its caller's; else, each statement is one of its own."""
    import duckdb

    try:
        first, second = (connection.execute("SELECT system.main.txid_current()").fetchall() for _ in range(2))
    except duckdb.TransactionException:  # DuckDB 2 takes nothing but a ROLLBACK after an error
        return True
    return first == second


@atexit.register
def _close() -> None:
    """Close what is still open when Python ends: DuckDB 2 complains of functions that outlive it."""
    for connection in list(_connections):
        connection.close()
