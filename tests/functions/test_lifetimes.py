"""Connections that come and go in any order: what DuckDB was given to call stays where it is.

Each order runs in a process of its own, because DuckDB ends the process where it calls what is gone.
"""

from __future__ import annotations

import gc
import textwrap
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support import asked_for_money, connect, environment_of, make_staging, run_forked, run_python, settings_of

import duckdb_mistral
from duckdb_mistral.errors import ArgumentError
from duckdb_mistral.functions import register

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator

BEGIN = """
import gc, threading
import duckdb, duckdb_mistral
from concurrent.futures import ThreadPoolExecutor

def reuse_memory():
    # What is called in place of a function that is gone: others of its size.
    gc.collect()
    return [(lambda *given, number=number: number) for number in range(20_000)], [bytes(n) for n in range(2_000)]

def works(connection):
    kept = reuse_memory()
    assert connection.execute("FROM mistral_batch_status()").fetchall() == []
    query = "SELECT custom_id FROM mistral_batch_preview('SELECT 1 AS custom_id, ''hi'' AS prompt')"
    assert connection.execute(query).fetchall() == [("1",)]
    assert connection.execute("SELECT count(*) FROM mistral_batch_results()").fetchall() == [(0,)]
"""

ORDERS = {
    "the same file twice, the first one dropped": """
        con = duckdb_mistral.connect("t.duckdb")
        con = duckdb_mistral.connect("t.duckdb")
        works(con)
    """,
    "the same file twice, the first one closed": """
        first, second = duckdb_mistral.connect("t.duckdb"), duckdb_mistral.connect("t.duckdb")
        first.close()
        works(second)
    """,
    "the same file twice, the second one closed": """
        first, second = duckdb_mistral.connect("t.duckdb"), duckdb_mistral.connect("t.duckdb")
        second.close()
        del second
        works(first)
    """,
    "a file opened again after all were closed": """
        for _ in range(3):
            with duckdb_mistral.connect("t.duckdb") as con:
                works(con)
    """,
    "a named database in memory twice": """
        con = duckdb_mistral.connect(":memory:named")
        con = duckdb_mistral.connect(":memory:named")
        works(con)
    """,
    "a cursor for each call": """
        base = duckdb.connect()
        for _ in range(5):
            with base.cursor() as cursor:
                duckdb_mistral.register(cursor)
                works(cursor)
    """,
    "the first cursor dropped, the base registered later": """
        base = duckdb.connect()
        cursor = base.cursor()
        duckdb_mistral.register(cursor)
        del cursor
        reuse_memory()
        duckdb_mistral.register(base)
        works(base)
    """,
    "the base dropped while cursors live": """
        base = duckdb_mistral.connect()
        cursors = [base.cursor() for _ in range(3)]
        for cursor in cursors:
            duckdb_mistral.register(cursor)
        del base
        for cursor in cursors:
            works(cursor)
    """,
    "a cursor of a cursor": """
        first = duckdb.connect()
        second = first.cursor()
        duckdb_mistral.register(second)
        third = second.cursor()
        duckdb_mistral.register(third)
        del first, second
        works(third)
        fourth = third.cursor()
        del third
        duckdb_mistral.register(fourth)
        works(fourth)
    """,
    "a plain connection keeps the database": """
        plain = duckdb.connect("t.duckdb")
        for _ in range(3):
            con = duckdb_mistral.connect("t.duckdb")
            works(con)
            con.close()
        duckdb_mistral.register(plain)
        works(plain)
    """,
    "the default connection and its cursors": """
        duckdb_mistral.register()
        cursor = duckdb.cursor()
        duckdb_mistral.register(cursor)
        works(cursor)
        cursor.close()
        works(duckdb)
        duckdb.close()
        duckdb_mistral.register()
        works(duckdb)
    """,
    "another default connection": """
        duckdb_mistral.register()
        con = duckdb.connect()
        duckdb.set_default_connection(con)
        duckdb_mistral.register()
        del con
        works(duckdb)
    """,
    "a relation that outlives its names": """
        relation = duckdb_mistral.connect("t.duckdb").sql(
            "FROM mistral_batch_preview('SELECT 1 AS custom_id, ''hi'' AS prompt')"
        )
        other = duckdb_mistral.connect("t.duckdb")
        reuse_memory()
        assert len(relation.fetchall()) == 1
        del relation
        works(other)
    """,
    "many databases at once, closed in another order": """
        cons = [duckdb_mistral.connect(f":memory:{number % 7}") for number in range(30)]
        for number in (3, 1, 4, 15, 9, 2, 6, 5, 35, 8, 0, 7):
            cons[number % 30].close()
        for number, con in enumerate(cons):
            if number not in (3, 1, 4, 15, 9, 2, 6, 5, 8, 0, 7):
                works(con)
    """,
    "a thread that closes while another one waits": """
        base = duckdb.connect()
        registered, closed = threading.Event(), threading.Event()
        def first():
            with base.cursor() as cursor:
                duckdb_mistral.register(cursor)
                registered.set()
                assert waiting.wait(60)
            closed.set()
        waiting = threading.Event()
        def second():
            cursor = base.cursor()
            assert registered.wait(60)
            duckdb_mistral.register(cursor)
            waiting.set()
            assert closed.wait(60)
            works(cursor)
            return True
        with ThreadPoolExecutor(2) as pool:
            done = [pool.submit(first), pool.submit(second)]
            assert done[1].result(60)
            done[0].result(60)
    """,
    "cursors of many threads": """
        base = duckdb.connect("t.duckdb")
        def work(_):
            for _ in range(3):
                with base.cursor() as cursor:
                    duckdb_mistral.register(cursor)
                    assert cursor.execute("FROM mistral_batch_status()").fetchall() == []
                gc.collect()
            return True
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, range(24)))
        reuse_memory()
        duckdb_mistral.register(base)
        works(base)
    """,
    "connections of many threads": """
        def work(_):
            with duckdb_mistral.connect("t.duckdb") as con:
                assert con.execute("FROM mistral_batch_status()").fetchall() == []
            return True
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(24)))
        works(duckdb_mistral.connect("t.duckdb"))
    """,
    "SQLAlchemy's pool of cursors": """
        from sqlalchemy.pool import QueuePool
        base = duckdb.connect()
        def registered():
            cursor = base.cursor()
            duckdb_mistral.register(cursor)
            return cursor
        pool = QueuePool(registered, pool_size=2, max_overflow=4, reset_on_return=None)
        def work(_):
            lent = pool.connect()
            try:
                return lent.driver_connection.execute("FROM mistral_batch_status()").fetchall()
            finally:
                lent.close()
        with ThreadPoolExecutor(6) as threads:
            assert list(threads.map(work, range(30))) == [[]] * 30
        pool.dispose()
        reuse_memory()
        assert work(0) == []
        duckdb_mistral.register(base)
        works(base)
    """,
    "SQLAlchemy's pool of connections, recycled": """
        from sqlalchemy.pool import NullPool, QueuePool
        def opened():
            return duckdb_mistral.connect("t.duckdb")
        for kind in (QueuePool, NullPool):
            pool = kind(opened, recycle=0, reset_on_return=None)
            for _ in range(4):
                lent, other = pool.connect(), pool.connect()
                lent.invalidate()
                works(other.driver_connection)
                other.close()
            pool.dispose()
    """,
    "a cycle that the collector finds": """
        class Holder: pass
        keeper = duckdb.connect("t.duckdb")
        for _ in range(3):
            holder = Holder()
            holder.itself, holder.con = holder, duckdb_mistral.connect("t.duckdb")
            works(holder.con)
            del holder
            gc.collect()
        duckdb_mistral.register(keeper)
        works(keeper)
    """,
}


@pytest.mark.parametrize("order", ORDERS)
def test_orders(order: str, emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """Whatever was closed, dropped or collected before, a registered connection can call its functions."""
    code = BEGIN + textwrap.dedent(ORDERS[order]) + "\nprint('done')"
    child = run_forked(code, environment_of(emulator, home), directory=tmp_path)
    assert (child.stderr, child.returncode, child.stdout) == ("", 0, "done\n")


def test_registering_again_keeps_what_is_pending(con: duckdb.DuckDBPyConnection) -> None:
    """Rows that were not fetched yet are there after another register, also when it changes a setting."""
    con.execute("FROM range(100_000)")
    assert con.fetchone() == (0,)
    duckdb_mistral.register(con)
    duckdb_mistral.register(con, model="ministral-3b-latest")
    assert con.fetchmany(2) == [(1,), (2,)]
    assert len(con.fetchall()) == 99_997


def test_registering_the_default_connection_again(emulator: Emulator, home: Path) -> None:
    """The default connection is known again although nobody held it meanwhile."""
    duckdb_mistral.register(**settings_of(emulator, home))
    duckdb.execute("FROM range(100_000)")
    assert duckdb.fetchone() == (0,)
    duckdb_mistral.register()
    assert duckdb.fetchone() == (1,)


def test_registering_again_keeps_a_transaction(con: duckdb.DuckDBPyConnection) -> None:
    """Neither a ROLLBACK nor a COMMIT after another register takes functions or the caller's work away."""
    cursor = con.cursor()
    duckdb_mistral.register(cursor)
    for end, tables in (("ROLLBACK", 0), ("COMMIT", 1)):
        cursor.execute("BEGIN")
        cursor.execute("CREATE TABLE work (a INTEGER)")
        duckdb_mistral.register(cursor)
        duckdb_mistral.register(con)
        cursor.execute(end)
        assert cursor.execute("FROM mistral_batch_status()").fetchall() == []
        assert con.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'work'").fetchall() == [(tables,)]


def test_registering_another_cursor_in_a_transaction(con: duckdb.DuckDBPyConnection) -> None:
    """A cursor whose ROLLBACK would take the functions away is told so, and its transaction goes on."""
    cursor = con.cursor()
    cursor.execute("BEGIN")
    cursor.execute("CREATE TABLE work AS SELECT 1 AS a")
    with pytest.raises(ArgumentError, match="Register before BEGIN, or after COMMIT"):
        duckdb_mistral.register(cursor)
    cursor.execute("COMMIT")
    assert con.execute("FROM work").fetchall() == [(1,)]
    duckdb_mistral.register(cursor)
    assert cursor.execute("FROM mistral_batch_status()").fetchall() == []


def test_registering_beside_a_transaction(emulator: Emulator, home: Path) -> None:
    """The functions of a database are made beside its connections: what one of them rolls back takes none away."""
    with duckdb.connect() as con:
        con.execute("BEGIN")
        cursor = con.cursor()
        duckdb_mistral.register(cursor, **settings_of(emulator, home))
        con.execute("ROLLBACK")
        duckdb_mistral.register(con)
        for connection in (con, cursor):
            assert connection.execute("FROM mistral_batch_status()").fetchall() == []


def test_closed_connection(con: duckdb.DuckDBPyConnection) -> None:
    """A connection that is closed is not registered again without a word."""
    con.close()
    with pytest.raises(duckdb.ConnectionException, match="closed"):
        duckdb_mistral.register(con)


def test_nothing_heavy_outlives_the_last_connection(emulator: Emulator, home: Path) -> None:
    """With the last registered connection of a database go its client and its spools, and a later one works."""
    con = connect(emulator, home)
    cursor = con.cursor()
    duckdb_mistral.register(cursor)
    session = _session(con)
    con.execute("FROM mistral_batch_status()").fetchall()
    del con
    gc.collect()
    assert session._context is not None
    with pytest.raises(duckdb.ConversionException):  # after the first rows were spooled
        cursor.execute(
            "FROM mistral_batch_submit('SELECT range AS custom_id, "
            "CASE WHEN range = 100000 THEN (''x'' || range)::INT ELSE 1 END AS prompt FROM range(100001)')"
        )
    keeper = cursor.cursor()
    del cursor
    gc.collect()
    assert (session._context, len(session.spools)) == (None, 0)
    duckdb_mistral.register(keeper)
    assert _session(keeper) is session
    assert list((home / "spool").iterdir()) == []
    make_staging(keeper)
    assert keeper.execute("SELECT total_requests FROM mistral_batch_submit('staging')").fetchall() == [(3,)]
    assert asked_for_money(emulator) == (1, 1)


def _session(con: duckdb.DuckDBPyConnection) -> Any:
    return register._registered[con].session


def test_thread_that_outlives_the_main_one(emulator: Emulator, home: Path) -> None:
    """A thread that goes on after the end of the script, for which Python waits, can submit and read results."""
    code = """if True:
        import threading, time
        import duckdb_mistral

        con = duckdb_mistral.connect()
        main = threading.current_thread()

        def work():
            from duckdb_mistral.requests import spool  # for the first time, as everything else is

            spool.HALVED = 10
            source = "SELECT range AS custom_id, 'prompt ' || range AS prompt FROM range(20)"
            ((submission_id, *_),) = con.execute("FROM mistral_batch_submit($source)", {"source": source}).fetchall()
            con.execute("FROM mistral_batch_wait($id)", {"id": submission_id}).fetchall()
            print(con.execute(f"SELECT count(content) FROM mistral_batch_results('{submission_id}')").fetchall())

        def begin():
            main.join()
            time.sleep(0.2)
            work()

        threading.Thread(target=begin).start()
    """
    child = run_python(code, environment_of(emulator, home))
    assert child.stdout == "[(20,)]\n", child.stderr
    assert child.returncode == 0
