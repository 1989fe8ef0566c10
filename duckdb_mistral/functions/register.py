"""Registering: the functions on a database, and the TEMP macros that people call on each connection."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from duckdb_mistral.duck.sql_files import macros
from duckdb_mistral.errors import ArgumentError
from duckdb_mistral.runtime import forks
from duckdb_mistral.runtime.memory import check_room
from duckdb_mistral.settings import ENVIRONMENT, check_names

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb

    from duckdb_mistral.functions.udfs import Functions

#: Every session's functions by its name, for the life of the process: nothing tells when DuckDB, which calls them by
#: their address, has let go of a database. They are 2 kB; what is heavy goes with the last connection.
_databases: dict[str, Functions] = {}
#: The connections and cursors that have the macros, with the functions of their database.
_registered: weakref.WeakKeyDictionary[duckdb.DuckDBPyConnection, Functions] = weakref.WeakKeyDictionary()
#: The default connection: DuckDB makes a new object for it whenever nobody holds one.
_default: list[duckdb.DuckDBPyConnection] = []
#: Threads that register cursors of one database at once make its functions once.
_registering = threading.Lock()


def register(con: duckdb.DuckDBPyConnection | None = None, **settings: Any) -> None:
    """Give a DuckDB connection the mistral functions.

    `con` is a connection or a cursor; without it, the default connection, which `duckdb.sql` uses. Calling it again
    changes nothing but the settings that are given: rows that were not fetched yet and a transaction stay as they are.
    No network connection is opened, no key is read, and nothing is written to the user's database: the functions are
    TEMP.

    Settings (see the README): api_key, server_url, home, model, max_requests_per_job, max_bytes_per_file,
    max_pending_requests, reconcile_seconds, poll_seconds, deadline_seconds, prices, ledger, store. What is not given
    comes from the environment at each call.

    Raises SettingError for a setting that does not exist or cannot be used, ArgumentError for what is not a connection
    and for the first call on a connection or cursor in a transaction.
    """
    import duckdb

    connection = duckdb.default_connection() if con is None else con
    if not hasattr(connection, "create_function"):
        raise ArgumentError(
            f"register() takes a DuckDB connection, not {connection!r}. duckdb_mistral.connect() takes the name of a "
            "database, and returns a connection that has the functions."
        )
    known = connection in _registered
    if not known and _in_transaction(connection):
        raise ArgumentError(
            "register() was called in a transaction, whose ROLLBACK would remove the functions again. Nothing was "
            "changed. Register before BEGIN, or after COMMIT."
        )
    functions = _functions_of(connection, settings)
    if not known:
        for statements in macros():
            connection.execute(statements)
        functions.session.join(connection)
        forks.leave_to_parent(connection)
        _registered[connection] = functions
    if con is None:
        _default[:] = [connection]


def connect(
    database: str = ":memory:", *, settings: dict[str, Any] | None = None, **duckdb_arguments: Any
) -> duckdb.DuckDBPyConnection:
    """Return `duckdb.connect(database, **duckdb_arguments)` with the functions registered.

    Raises SettingError for `settings` that cannot be used, the connection is then closed again, and ArgumentError for
    arguments that neither this function nor duckdb.connect takes.
    """
    import duckdb

    check_names(_settings(settings, duckdb_arguments))
    check_room()  # DuckDB starts threads
    try:
        connection = duckdb.connect(database, **duckdb_arguments)
    except TypeError:  # whose words show the arguments, a key among them
        raise ArgumentError(
            f"duckdb.connect() does not take {' and '.join(duckdb_arguments) or 'this database'}. It takes the name "
            "of a database as text or a path, read_only as True or False, and config as a dictionary of DuckDB's "
            "settings; those of the functions go into settings={…}."
        ) from None
    try:
        register(connection, **(settings or {}))
    except BaseException:
        connection.close()
        raise
    return connection


def _settings(settings: object, duckdb_arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings that connect() was given; raise ArgumentError where they stand elsewhere."""
    misplaced = [name for name in duckdb_arguments if name in ENVIRONMENT]
    if misplaced:
        raise ArgumentError(
            f"connect() takes settings in one dictionary: connect(…, settings={{'{misplaced[0]}': …}}). What is "
            f"outside it, such as {' and '.join(misplaced)} here, goes to duckdb.connect()."
        )
    if settings is not None and not isinstance(settings, Mapping):
        raise ArgumentError(f"settings must be a dictionary such as {{'model': …}}, not a {type(settings).__name__}.")
    return settings or {}


def on_trouble(connection: duckdb.DuckDBPyConnection, listener: Callable[[str], object]) -> None:
    """Let `listener` hear why the API could not be asked for jobs that a status shows all the same."""
    functions = _registered.get(connection)
    if functions is not None:
        functions.session.on_trouble = listener


def _functions_of(connection: duckdb.DuckDBPyConnection, settings: dict[str, Any]) -> Functions:
    """Return the functions of a connection's database with `settings`, and create them where it has none.

    All of it is done beside the connection: a statement on it would discard the rows that its caller has not fetched.
    """
    with _registering, closing(connection.cursor()) as cursor:
        found = _found(cursor)
        if found is None:
            return _created(cursor, settings)
        found.session.configure(settings)
        return found


def _found(cursor: duckdb.DuckDBPyConnection) -> Functions | None:
    """Return what an earlier register on the same database made, or None."""
    import duckdb

    try:
        ((name,),) = cursor.execute("SELECT system.main.mistral_internal_session(true)").fetchall()
    # Where there is no such function, DuckDB looks for a macro of the caller's after all.
    except (duckdb.CatalogException, duckdb.BinderException):
        return None
    return _databases.get(name)


def _created(cursor: duckdb.DuckDBPyConnection, settings: dict[str, Any]) -> Functions:
    from duckdb_mistral.functions.session import Session
    from duckdb_mistral.functions.udfs import Functions

    functions = Functions(Session(settings))
    _databases[functions.session.name] = functions  # before DuckDB has the first of them
    functions.create(cursor)
    return functions


def _in_transaction(connection: duckdb.DuckDBPyConnection) -> bool:
    """Tell whether a connection is in a transaction of its caller's; else, each statement is one of its own."""
    import duckdb

    try:
        first, second = (connection.execute("SELECT system.main.txid_current()").fetchall() for _ in range(2))
    except duckdb.TransactionException:  # DuckDB 2 takes nothing but a ROLLBACK after an error
        return True
    return first == second


def _begin_child() -> None:
    """Start afresh with what another thread of the parent may have held when it forked."""
    global _registering
    _registering = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_child)


@atexit.register
def _close() -> None:
    """Close what is still open when Python ends: DuckDB 2 complains of functions that outlive it."""
    import duckdb

    for connection in list(_registered):
        if not forks.is_inherited(connection):
            with suppress(duckdb.Error):  # DuckDB 2 does not close one that a thread is still using
                connection.close()
