"""Every good source of the contract, on a real connection, checked by what comes back."""

from __future__ import annotations

import json
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import duckdb
import pyarrow as pa
import pytest
from support import (
    answered,
    asked_for_money,
    connect,
    environment_of,
    make_staging,
    rows,
    run_python,
    settings_of,
    submitted,
)

import duckdb_mistral
from duckdb_mistral.emulator import Emulator
from duckdb_mistral.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TWO_ROWS = "(VALUES ('1', 'first'), ('2', 'second')) v(custom_id, prompt)"
TWO_ANSWERS = [("1", "ok", "echo: first"), ("2", "ok", "echo: second")]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """Yield one local batch server for the whole file; each test has a home and a workspace of its own."""
    with Emulator(tmp_path_factory.mktemp("server"), separate_workspaces=True) as server:
        yield server


@pytest.fixture
def con(emulator: Emulator, home: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection with a key of its own, so that its workspace remembers nothing of other tests."""
    with connect(emulator, home, api_key=f"key-{uuid4()}") as connection:
        yield connection


def answers(con: duckdb.DuckDBPyConnection, source: str, arguments: str = "") -> list[tuple[str, str, str]]:
    """Submit a source, wait, and return custom_id, outcome and content of every result."""
    found = answered(con, submitted(con, source, arguments))
    return [(row["custom_id"], row["outcome"], row["content"]) for row in found]


def bodies(con: duckdb.DuckDBPyConnection, source: str, arguments: str = "") -> list[Any]:
    """Return the request bodies that a submit would send, in the order of their custom_ids."""
    call = f"FROM mistral_batch_preview($source{', ' + arguments if arguments else ''}) ORDER BY custom_id"
    return [json.loads(row["body"]) for row in rows(con, call, {"source": source})]


def body(con: duckdb.DuckDBPyConnection, select: str, arguments: str = "") -> Any:
    """Return the one request body of a source with the custom_id 1 and the columns of `select`."""
    (only,) = bodies(con, f"SELECT 1 AS custom_id, {select}", arguments)
    return only


SOURCES = {
    "a table": (f"CREATE TABLE t AS FROM {TWO_ROWS}", "t"),
    "a temp table": (f"CREATE TEMP TABLE t AS FROM {TWO_ROWS}", "t"),
    "a view": (f"CREATE VIEW v AS FROM {TWO_ROWS}", "v"),
    "a temp view": (f"CREATE TEMP VIEW v AS FROM {TWO_ROWS}", "v"),
    "a table of a schema": (f"CREATE SCHEMA s; CREATE TABLE s.t AS FROM {TWO_ROWS}", "s.t"),
    "a table of an attached database": (
        f"ATTACH ':memory:' AS other; CREATE TABLE other.t AS FROM {TWO_ROWS}",
        "other.main.t",
    ),
    "a quoted qualified name": (
        f'CREATE SCHEMA "a b"; CREATE TABLE "a b"."c.d" AS FROM {TWO_ROWS}',
        'memory."a b"."c.d"',
    ),
    "a name with every kind of quote": (
        f"""CREATE TABLE "it's ""the"" table; -- x" AS FROM {TWO_ROWS}""",
        '''"it's ""the"" table; -- x"''',
    ),
    "a name in Unicode": (f"CREATE TABLE tâches_日本 AS FROM {TWO_ROWS}", "tâches_日本"),
    "a name that needs quotes and has none": (f'CREATE TABLE "my-table" AS FROM {TWO_ROWS}', "my-table"),
    "a name that is a keyword": (f'CREATE TABLE "select" AS FROM {TWO_ROWS}', "select"),
    "a name that is a statement": (f'CREATE TABLE "checkpoint" AS FROM {TWO_ROWS}', "checkpoint"),
    "a name among blanks": (f"CREATE TABLE t AS FROM {TWO_ROWS}", " \n t\t"),
    "a name with a semicolon": (f"CREATE TABLE t AS FROM {TWO_ROWS}", "t;"),
    "a name with a comment": (f"CREATE TABLE t AS FROM {TWO_ROWS}", "t -- it's"),
    "a table function": (
        "",
        "(SELECT i AS custom_id, ['first', 'second'][i] AS prompt FROM range(1, 3) r(i))",
    ),
    "a name with an alias": (f"CREATE TABLE t AS FROM {TWO_ROWS}", "t AS u"),
    "a join": (
        f"CREATE TABLE a AS SELECT unnest(['1', '2']) AS custom_id; CREATE TABLE b AS FROM {TWO_ROWS}",
        "a JOIN b USING (custom_id)",
    ),
    "a SELECT": (f"CREATE TABLE t AS FROM {TWO_ROWS}", "SELECT custom_id, prompt FROM t"),
    "a SELECT with a semicolon": (f"CREATE TABLE t AS FROM {TWO_ROWS}", "SELECT * FROM t;\n"),
    "a SELECT with two semicolons": (f"CREATE TABLE t AS FROM {TWO_ROWS}", "SELECT * FROM t; ;"),
    "a SELECT with a comment": (f"CREATE TABLE t AS FROM {TWO_ROWS}", "SELECT * FROM t -- it's; the end"),
    "a SELECT with a comment after its semicolon": (
        f"CREATE TABLE t AS FROM {TWO_ROWS}",
        "SELECT * FROM t; -- it's; the end",
    ),
    "a SELECT with a comment before": (f"CREATE TABLE t AS FROM {TWO_ROWS}", "/* a;b */ -- c\nSELECT * FROM t"),
    "a SELECT with semicolons in text": (
        "",
        "SELECT '1' AS custom_id, 'first' AS prompt WHERE ';' <> $$;--$$ UNION ALL SELECT '2', 'second'",
    ),
    "a SELECT with template signs": (
        "CREATE TABLE t AS FROM " + TWO_ROWS,
        "SELECT custom_id, prompt FROM t WHERE prompt <> '$body $$plan ${source} {x} %s :x'",
    ),
    "a SELECT in brackets": (f"CREATE TABLE t AS FROM {TWO_ROWS}", "(SELECT * FROM t)"),
    "a SELECT with its own CTE": ("", f"WITH requests AS (FROM {TWO_ROWS}) SELECT * FROM requests"),
    "FROM first": (f"CREATE TABLE t AS FROM {TWO_ROWS}", "FROM t SELECT custom_id, prompt"),
    "FROM alone": (f"CREATE TABLE t AS FROM {TWO_ROWS}", "FROM t ORDER BY custom_id DESC LIMIT 5"),
    "a join with LIMIT": (
        f"CREATE TABLE t AS FROM {TWO_ROWS}; CREATE TABLE ids AS SELECT range::VARCHAR AS custom_id FROM range(50)",
        "SELECT custom_id, prompt FROM ids JOIN t USING (custom_id) LIMIT 2",
    ),
    "a view with a join with LIMIT": (
        f"""CREATE TABLE t AS FROM {TWO_ROWS};
        CREATE TABLE ids AS SELECT range::VARCHAR AS custom_id FROM range(50);
        CREATE VIEW v AS (SELECT custom_id, prompt FROM ids JOIN t USING (custom_id) WHERE custom_id <> '2' LIMIT 5)
        UNION ALL SELECT '2', 'second'""",
        "v",
    ),
    "VALUES": ("", TWO_ROWS),
    "FROM VALUES": ("", f"FROM {TWO_ROWS}"),
    "a set operation": ("", "SELECT '1' AS custom_id, 'first' AS prompt UNION ALL SELECT '2', 'second'"),
    "names in another case": ("", "SELECT custom_id AS Custom_ID, prompt AS PROMPT FROM " + TWO_ROWS),
    "columns in another order": ("", "SELECT prompt, custom_id FROM " + TWO_ROWS),
    "columns that are not sent": (
        "",
        "SELECT *, 7 AS price, [1] AS list, {'a': 1} AS point, 'x' AS \"a column\", NULL AS nothing FROM " + TWO_ROWS,
    ),
}


@pytest.mark.parametrize(("setup", "source"), SOURCES.values(), ids=SOURCES)
def test_source(con: duckdb.DuckDBPyConnection, setup: str, source: str) -> None:
    """Each kind of source gives an answer to each of its rows."""
    con.execute(setup)
    assert answers(con, source) == TWO_ANSWERS


@pytest.mark.parametrize("name", ["source_columns", "spool", "source_rows", "requests", "lines", "hashed", "summary"])
def test_source_named_as_an_inner_part(con: duckdb.DuckDBPyConnection, name: str) -> None:
    """A table whose name the generated statement uses itself is the user's table."""
    con.execute(f"CREATE TABLE {name} AS FROM {TWO_ROWS}")
    assert answers(con, name) == TWO_ANSWERS


@pytest.mark.fault("F13")
def test_uncommitted_table(con: duckdb.DuckDBPyConnection) -> None:
    """A table of an open transaction can be sent, and its job stays when the transaction is rolled back."""
    con.execute("BEGIN")
    con.execute(f"CREATE TABLE t AS FROM {TWO_ROWS}")
    submission_id = submitted(con, "t")
    con.execute("ROLLBACK")
    assert con.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 't'").fetchone() == (0,)
    assert [row["submission_id"] for row in rows(con, "FROM mistral_batch_status()")] == [submission_id]
    assert [row["content"] for row in answered(con, submission_id)] == ["echo: first", "echo: second"]


def test_cte_of_the_same_statement(con: duckdb.DuckDBPyConnection) -> None:
    """A CTE of the statement that calls submit is a source by its name."""
    found = rows(
        con, f"WITH staging AS (SELECT * FROM {TWO_ROWS}) SELECT submission_id FROM mistral_batch_submit('staging')"
    )
    assert [row["content"] for row in answered(con, found[0]["submission_id"])] == ["echo: first", "echo: second"]


def test_rows_changed_are_another_submission(con: duckdb.DuckDBPyConnection) -> None:
    """A table that has changed is new content, and the same content in another order is not."""
    con.execute(f"CREATE TABLE t AS FROM {TWO_ROWS}")
    first = submitted(con, "t")
    assert submitted(con, "FROM t ORDER BY custom_id DESC") == first
    con.execute("UPDATE t SET prompt = 'changed' WHERE custom_id = '2'")
    assert submitted(con, "t") != first


WAYS = {
    "count(*)": ("SELECT count(*) FROM mistral_batch_submit('staging')", 1),
    "no column": ("SELECT 1 FROM mistral_batch_submit('staging')", 1),
    "EXISTS": ("SELECT exists(FROM mistral_batch_submit('staging'))", 1),
    "CREATE TABLE AS": ("CREATE TABLE sent AS FROM mistral_batch_submit('staging')", 1),
    "EXPLAIN ANALYZE": ("EXPLAIN ANALYZE FROM mistral_batch_submit('staging')", 1),
    "twice in one statement": ("FROM mistral_batch_submit('staging') a, mistral_batch_submit('staging') b", 1),
    "no row": ("FROM mistral_batch_submit('staging') LIMIT 0", 0),
    "never": ("FROM mistral_batch_submit('staging') WHERE false", 0),
}


@pytest.mark.parametrize(("query", "creates"), WAYS.values(), ids=WAYS)
def test_ways_to_ask(con: duckdb.DuckDBPyConnection, emulator: Emulator, query: str, creates: int) -> None:
    """However a statement reads the rows of a submit, it submits once; what reads none of them sends nothing."""
    make_staging(con)
    before = asked_for_money(emulator)
    con.execute(query).fetchall()
    assert asked_for_money(emulator) == (before[0] + creates, before[1] + creates)


# Python's own tables


def test_arrow_table_in_scope(con: duckdb.DuckDBPyConnection) -> None:
    """An Arrow table of the calling function is found by its name."""
    staging = pa.table({"custom_id": ["1", "2"], "prompt": ["first", "second"]})
    assert con.execute("SELECT count(*) FROM mistral_batch_preview('staging')").fetchone() == (len(staging),)
    found = con.execute("SELECT submission_id FROM mistral_batch_submit('staging')").fetchone()
    assert found
    assert [row["content"] for row in answered(con, found[0])] == ["echo: first", "echo: second"]


def test_data_frame_in_scope(con: duckdb.DuckDBPyConnection) -> None:
    """A pandas DataFrame of the calling function is found by its name."""
    pandas = pytest.importorskip("pandas")
    staging = pandas.DataFrame({"custom_id": [1, 2], "prompt": ["first", "second"]})
    found = con.execute("SELECT submission_id FROM mistral_batch_submit('staging')").fetchone()
    assert len(staging) == 2
    assert found
    assert [row["content"] for row in answered(con, found[0])] == ["echo: first", "echo: second"]


def test_record_batch_reader_in_scope(con: duckdb.DuckDBPyConnection) -> None:
    """A reader that can be read only once is read once, and all its rows are sent."""
    staging = pa.table({"custom_id": [0, 1, 2], "prompt": ["prompt 0", "prompt 1", "prompt 2"]})
    reader = staging.to_reader(max_chunksize=1)
    found = con.execute("SELECT submission_id, total_requests FROM mistral_batch_submit('reader')").fetchone()
    assert reader is not None
    assert found
    assert found[1] == 3
    assert [row["content"] for row in answered(con, found[0])] == [f"echo: prompt {number}" for number in range(3)]


def test_relation_and_registered_view(con: duckdb.DuckDBPyConnection) -> None:
    """A relation in scope and a registered Arrow table are sources."""
    relation = con.sql(f"FROM {TWO_ROWS}")
    found = con.execute("SELECT custom_id FROM mistral_batch_preview('relation') ORDER BY ALL").fetchall()
    assert found == relation.project("custom_id").order("custom_id").fetchall()
    con.register("registered", pa.table({"custom_id": ["1", "2"], "prompt": ["first", "second"]}))
    assert answers(con, "registered") == TWO_ANSWERS


def test_default_connection_in_a_script(emulator: Emulator, home: Path) -> None:
    """In a script, `duckdb.sql` finds the Arrow tables and DataFrames of the module and of a function."""
    code = """
    import duckdb, duckdb_mistral, pyarrow as pa
    duckdb_mistral.register()
    globally = pa.table({"custom_id": ["1"], "prompt": ["global"]})
    print(duckdb.sql("SELECT reused FROM mistral_batch_submit('globally')").fetchall())
    def inside():
        locally = pa.table({"custom_id": ["1"], "prompt": ["local"]})
        relation = duckdb.sql("SELECT reused FROM mistral_batch_submit('locally')")
        print(relation.fetchall())
    inside()
    for (submission,) in duckdb.sql("SELECT submission_id FROM mistral_batch_status()").fetchall():
        duckdb.sql(f"FROM mistral_batch_wait('{submission}')").fetchall()
    print(duckdb.sql("SELECT content FROM mistral_batch_results() ORDER BY ALL").fetchall())
    """
    child = run_python(textwrap.dedent(code), environment_of(emulator, home))
    assert child.returncode == 0, child.stderr
    assert child.stdout.splitlines() == ["[(False,)]", "[(False,)]", "[('echo: global',), ('echo: local',)]"]


# Arguments that are no literals


def test_macro_of_the_users(con: duckdb.DuckDBPyConnection) -> None:
    """A macro of the user's hands its parameter on as the source."""
    con.execute("CREATE TEMP MACRO cheap(mine) AS TABLE SELECT * FROM mistral_batch_submit(mine, timeout_hours := 48)")
    make_staging(con)
    (row,) = rows(con, "SELECT total_requests, reused FROM cheap('staging')")
    assert row == {"total_requests": 3, "reused": False}


@pytest.mark.parametrize(
    "query",
    [
        "SELECT topic, job_id FROM topics, LATERAL (FROM mistral_batch_submit($$ {source} $$))",
        "SELECT topic, job_id FROM topics LEFT JOIN LATERAL (FROM mistral_batch_submit($$ {source} $$)) ON true",
        "SELECT topic, (SELECT job_id FROM mistral_batch_submit($$ {source} $$)) FROM topics",
    ],
)
def test_source_of_an_outer_row(con: duckdb.DuckDBPyConnection, emulator: Emulator, query: str) -> None:
    """A source that uses a column of the statement around the call is refused, and its rows can be submitted alone."""
    con.execute("CREATE TABLE topics AS SELECT 'topic ' || range AS topic FROM range(3)")
    con.execute("CREATE TABLE tickets AS SELECT range AS id, 'topic ' || range % 3 AS about FROM range(12)")
    source = "SELECT id AS custom_id, about AS prompt FROM tickets WHERE about = {topic}"
    before = asked_for_money(emulator)
    with pytest.raises(duckdb.Error, match=r"uses a column of the statement around .* Nothing was sent\."):
        con.execute(query.format(source=source.format(topic="topic"))).fetchall()
    assert asked_for_money(emulator) == before
    for topic in range(3):
        (row,) = rows(con, "FROM mistral_batch_submit($source)", {"source": source.format(topic=f"'topic {topic}'")})
        assert (row["total_requests"], row["reused"]) == (4, False)


def test_source_as_prepared_parameter(con: duckdb.DuckDBPyConnection) -> None:
    """Source and arguments may be prepared parameters, by position and by name."""
    make_staging(con)
    positional = con.execute("FROM mistral_batch_submit(?, model := ?)", ["staging", "ministral-8b-latest"]).fetchall()
    named = con.execute(
        "FROM mistral_batch_submit($source, model := $model, metadata := $metadata)",
        {"source": "staging", "model": "ministral-8b-latest", "metadata": None},
    ).fetchall()
    assert positional[0][:2] == named[0][:2]
    assert positional[0][4] == "ministral-8b-latest"


def test_parameters_in_a_prepared_statement(con: duckdb.DuckDBPyConnection) -> None:
    """A statement that is prepared in SQL runs with the values of each EXECUTE."""
    make_staging(con)
    con.execute("PREPARE previewed AS FROM mistral_batch_preview('staging', system := ?)")
    for system in ("be brief", "be kind"):
        found = con.execute(f"EXECUTE previewed('{system}')").fetchall()
        assert {json.loads(text)["messages"][0]["content"] for _, text in found} == {system}


@pytest.mark.parametrize("by_variable", [True, False], ids=["getvariable", "parameter"])
def test_results_by_variable_and_parameter(con: duckdb.DuckDBPyConnection, *, by_variable: bool) -> None:
    """The id of results may be a variable that a statement set, or a prepared parameter."""
    make_staging(con)
    con.execute("SET VARIABLE job = (SELECT submission_id FROM mistral_batch_submit('staging'))")
    submission_id = con.execute("SELECT getvariable('job')").fetchall()[0][0]
    answered(con, submission_id)
    if by_variable:
        found = con.execute("SELECT custom_id FROM mistral_batch_results(getvariable('job')) ORDER BY ALL").fetchall()
    else:
        found = con.execute("SELECT custom_id FROM mistral_batch_results($1) ORDER BY ALL", [submission_id]).fetchall()
    assert found == [("0",), ("1",), ("2",)]


def test_results_without_id_by_subquery(con: duckdb.DuckDBPyConnection) -> None:
    """Where the id is only known by a subquery, it goes into the WHERE of the call without id."""
    make_staging(con)
    submission_id = submitted(con)
    other = submitted(con, "SELECT 'x' AS custom_id, 'y' AS prompt")
    answered(con, submission_id)
    answered(con, other)
    found = con.execute(
        "SELECT custom_id FROM mistral_batch_results() WHERE submission_id = "
        "(SELECT max(submission_id) FROM mistral_batch_status() WHERE total_requests = 3) ORDER BY ALL"
    ).fetchall()
    assert found == [("0",), ("1",), ("2",)]


@pytest.mark.parametrize("function", ["status", "wait", "cancel"])
def test_id_by_subquery_and_lateral(con: duckdb.DuckDBPyConnection, function: str) -> None:
    """The id of status, wait and cancel may be a subquery or a column of a LATERAL join."""
    make_staging(con)
    con.execute("CREATE TABLE sent AS FROM mistral_batch_submit('staging', model := ['a', 'b'])")
    jobs = set(con.execute("SELECT job_id FROM sent").fetchall())
    by_subquery = con.execute(
        f"SELECT job_id FROM mistral_batch_{function}((SELECT any_value(submission_id) FROM sent))"
    )
    assert set(by_subquery.fetchall()) == jobs
    by_lateral = con.execute(f"SELECT asked.job_id FROM sent, LATERAL mistral_batch_{function}(sent.job_id) asked")
    assert set(by_lateral.fetchall()) == jobs
    assert len(jobs) == 2


def test_results_in_a_larger_statement(con: duckdb.DuckDBPyConnection) -> None:
    """Results join, aggregate and create tables as any table function does."""
    make_staging(con, 4)
    submission_id = submitted(con)
    answered(con, submission_id)
    con.execute(
        "CREATE TABLE labelled AS SELECT s.*, r.content FROM staging s "
        f"JOIN mistral_batch_results('{submission_id}') r USING (custom_id)"
    )
    assert con.execute("SELECT count(*), min(content), max(content) FROM labelled").fetchone() == (
        4,
        "echo: prompt 0",
        "echo: prompt 3",
    )


# Connections


def test_registered_cursor(con: duckdb.DuckDBPyConnection, home: Path) -> None:
    """A cursor has the functions once it is registered, with the settings of its database."""
    make_staging(con)
    cursor = con.cursor()
    with pytest.raises(duckdb.CatalogException):
        cursor.execute("FROM mistral_batch_status()")
    duckdb_mistral.register(cursor)
    assert answers(cursor, "staging")[0] == ("0", "ok", "echo: prompt 0")
    assert (home / "ledger.sqlite").exists()


def test_registering_in_a_transaction(emulator: Emulator, home: Path) -> None:
    """The first register of a connection is refused in a transaction, which goes on; a second one is not."""
    settings = settings_of(emulator, home)
    with duckdb.connect() as con:
        con.execute("BEGIN")
        con.execute("CREATE TABLE work AS SELECT 1 AS a")
        with pytest.raises(ArgumentError, match="Register before BEGIN, or after COMMIT"):
            duckdb_mistral.register(con, **settings)
        con.execute("COMMIT")
        assert con.execute("FROM work").fetchall() == [(1,)]
        duckdb_mistral.register(con, **settings)
        con.execute("BEGIN")
        duckdb_mistral.register(con)
        con.execute("ROLLBACK")
        assert con.execute("FROM mistral_batch_status()").fetchall() == []


def test_registering_in_an_aborted_transaction(emulator: Emulator, home: Path) -> None:
    """A transaction that an error ended is told as one, too."""
    with duckdb.connect() as con:
        con.execute("BEGIN")
        con.execute("CREATE TABLE work (a INTEGER PRIMARY KEY)")
        with pytest.raises(duckdb.Error):
            con.execute("INSERT INTO work VALUES (1), (1)")
        with pytest.raises(ArgumentError, match="Register before BEGIN, or after COMMIT"):
            duckdb_mistral.register(con, **settings_of(emulator, home))


def test_registering_cursors_in_threads(emulator: Emulator, home: Path) -> None:
    """Threads that register cursors of one new database at once all have the functions."""
    with duckdb.connect() as con, ThreadPoolExecutor(8) as pool:

        def registered(cursor: duckdb.DuckDBPyConnection) -> list[Any]:
            duckdb_mistral.register(cursor, **settings_of(emulator, home))
            return cursor.execute("FROM mistral_batch_status()").fetchall()

        assert list(pool.map(registered, [con.cursor() for _ in range(8)])) == [[]] * 8


def test_registering_again_keeps_the_settings(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """Registering again changes nothing, and the settings that are given then are taken over."""
    duckdb_mistral.register(con)
    make_staging(con)
    assert answers(con, "staging")[0] == ("0", "ok", "echo: prompt 0")
    duckdb_mistral.register(con, model="ministral-3b-latest")
    assert rows(con, "FROM mistral_batch_submit('staging')")[0]["model"] == "ministral-3b-latest"


def test_two_connections_of_one_file_in_threads(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """Threads with a connection each to one database file submit the same table once."""
    database = str(tmp_path / "tickets.duckdb")
    before = asked_for_money(emulator)
    with duckdb_mistral.connect(database, settings=settings_of(emulator, home)) as con:
        make_staging(con, 5000)
        found: list[Any] = []

        def work() -> None:
            with duckdb.connect(database) as own:
                duckdb_mistral.register(own)
                found.append(answers(own, "staging")[0])

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [("0", "ok", "echo: prompt 0")] * 3
    assert asked_for_money(emulator) == (before[0] + 1, before[1] + 1)


def test_nothing_is_written_to_the_users_database(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """A database file holds no function once its connection is closed, and opens without the package."""
    database = str(tmp_path / "plain.duckdb")
    with duckdb_mistral.connect(database, settings=settings_of(emulator, home)) as con:
        make_staging(con)
        answers(con, "staging")
    with duckdb.connect(database, read_only=True) as plain:
        count = "SELECT count(*) FROM duckdb_functions() WHERE function_name LIKE 'mistral%'"
        assert plain.execute(count).fetchone() == (0,)


def test_read_only_database(emulator: Emulator, home: Path, tmp_path: Path) -> None:
    """The functions work on a database that is opened read-only."""
    database = str(tmp_path / "archive.duckdb")
    with duckdb.connect(database) as plain:
        make_staging(plain)
    with duckdb_mistral.connect(database, settings=settings_of(emulator, home), read_only=True) as con:
        assert answers(con, "staging")[0] == ("0", "ok", "echo: prompt 0")


# custom_id

CUSTOM_IDS = {
    "INTEGER": ("-7::INTEGER", "-7"),
    "BIGINT": ("9223372036854775807::BIGINT", "9223372036854775807"),
    "HUGEINT": ("170141183460469231731687303715884105727::HUGEINT", "170141183460469231731687303715884105727"),
    "UUID": ("'3F2A9C1E-0000-4000-8000-00000000000A'::UUID", "3f2a9c1e-0000-4000-8000-00000000000a"),
    "DATE": ("DATE '2026-02-28'", "2026-02-28"),
    "TIMESTAMP": ("TIMESTAMP '2026-02-28 12:30:00.123456'", "2026-02-28 12:30:00.123456"),
    "DECIMAL": ("1.50::DECIMAL(9, 2)", "1.50"),
    "DOUBLE": ("0.1::DOUBLE", "0.1"),
    "BOOLEAN": ("true", "true"),
    "ENUM": ("'blue'::ENUM ('red', 'blue')", "blue"),
    "VARCHAR": ('$$it\'s "one"\\\n$$', 'it\'s "one"\\\n'),
    "VARCHAR of spaces": ("' '", " "),
    "empty VARCHAR": ("''", ""),
    "BLOB": ("'\\x00\\xFFab'::BLOB", "\\x00\\xFFab"),
    "LIST": ("[1, NULL, 3]", "[1, NULL, 3]"),
    "STRUCT": ("{'a': 1, 'b': 'x y'}", "{'a': 1, 'b': x y}"),
    "JSON": ("'{\"a\": [1]}'::JSON", '{"a": [1]}'),
    "a long one": ("repeat('x', 5000)", "x" * 5000),
}


@pytest.mark.parametrize(("value", "text"), CUSTOM_IDS.values(), ids=CUSTOM_IDS)
def test_custom_id_of_any_type(con: duckdb.DuckDBPyConnection, value: str, text: str) -> None:
    """A custom_id of any type is sent as its VARCHAR, and joins the source by that."""
    source = f"SELECT {value} AS custom_id, 'hello' AS prompt"
    assert answers(con, source) == [(text, "ok", "echo: hello")]
    joined = con.execute(
        f"SELECT count(*) FROM ({source}) s JOIN mistral_batch_results() r ON s.custom_id::VARCHAR = r.custom_id"
    )
    assert joined.fetchone() == (1,)


# Content columns

LIST_MESSAGES = "[{'role': 'system', 'content': 'be brief'}, {'role': 'user', 'content': 'hi'}]"
JSON_MESSAGES = '[{"role":"user","content":[{"type":"text","text":"hi"},{"type":"image_url","image_url":"u"}]}]'


def test_prompt_and_system(con: duckdb.DuckDBPyConnection) -> None:
    """A prompt is the user message, after the row's system message or else the argument's."""
    assert body(con, "'hi' AS prompt") == {"messages": [{"role": "user", "content": "hi"}]}
    found = bodies(
        con,
        "(VALUES (1, 'hi', 'be brief'), (2, 'hi', NULL), (3, 'hi', '')) v(custom_id, prompt, system)",
        "system := $$it's\nyou$$",
    )
    assert [message["content"] for each in found for message in each["messages"]] == [
        *("be brief", "hi"),
        *("it's\nyou", "hi"),
        *("", "hi"),
    ]
    assert [[message["role"] for message in each["messages"]] for each in found] == [["system", "user"]] * 3


def test_prompt_of_another_type(con: duckdb.DuckDBPyConnection) -> None:
    """A prompt that is no text is sent as its VARCHAR."""
    assert body(con, "DATE '2026-02-28' AS prompt")["messages"][0]["content"] == "2026-02-28"
    assert body(con, "42 AS prompt")["messages"][0]["content"] == "42"
    assert body(con, "'{\"a\": 1}'::JSON AS prompt")["messages"][0]["content"] == '{"a": 1}'


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (LIST_MESSAGES, [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]),
        (f"'{JSON_MESSAGES}'::JSON", json.loads(JSON_MESSAGES)),
        (f"'{JSON_MESSAGES}'", json.loads(JSON_MESSAGES)),
        (f"' {JSON_MESSAGES}'", json.loads(JSON_MESSAGES)),
        (
            "[{'role': 'user', 'content': [{'type': 'text', 'text': 'hi'}]}]",
            [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        ),
    ],
    ids=["list of structs", "JSON", "text", "text with a blank before", "chunks"],
)
def test_messages(con: duckdb.DuckDBPyConnection, column: str, expected: Any) -> None:
    """Messages may be a LIST of STRUCT, JSON, or text that is JSON; a system message goes before them."""
    assert body(con, f"{column} AS messages") == {"messages": expected}
    assert body(con, f"{column} AS messages", "system := 'first'") == {
        "messages": [{"role": "system", "content": "first"}, *expected]
    }


def test_messages_are_answered(con: duckdb.DuckDBPyConnection) -> None:
    """Rows with a prompt and rows with messages stand beside each other in one source."""
    con.execute("CREATE TABLE t (custom_id INTEGER, prompt VARCHAR, messages STRUCT(role VARCHAR, content VARCHAR)[])")
    con.execute(f"INSERT INTO t VALUES (1, 'first', NULL), (2, NULL, {LIST_MESSAGES})")
    assert answers(con, "t") == [("1", "ok", "echo: first"), ("2", "ok", "echo: hi")]


@pytest.mark.parametrize(
    "column",
    [
        "{'messages': [{'role': 'user', 'content': 'hi'}], 'temperature': 0.5, 'stop': NULL}",
        '\'{"messages":[{"role":"user","content":"hi"}],"temperature":0.5,"stop":null}\'::JSON',
        '\'{"messages":[{"role":"user","content":"hi"}],"temperature":0.5,"stop":null}\'',
    ],
    ids=["STRUCT", "JSON", "text"],
)
def test_body(con: duckdb.DuckDBPyConnection, column: str) -> None:
    """A body is sent as it is, whether STRUCT, JSON or text, and is answered."""
    sent = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0.5, "stop": None}
    assert body(con, f"{column} AS body") == sent
    assert answers(con, f"SELECT 1 AS custom_id, {column} AS body") == [("1", "ok", "echo: hi")]


# Options of a row, and of all rows

OPTIONS = {
    "max_tokens": ("5", 5),
    "temperature": ("0.25::DOUBLE", 0.25),
    "temperature of another number type": ("0.3::DECIMAL(3, 1)", 0.3),
    "top_p": ("1", 1),
    "random_seed": ("42::BIGINT", 42),
    "safe_prompt": ("true", True),
    "n": ("2::UTINYINT", 2),
    "stop": ("['a', 'b']", ["a", "b"]),
    "stop of one": ("'[end]'", "[end]"),
    "response_format": ("{'type': 'json_object'}", {"type": "json_object"}),
    "response_format as JSON": ('\'{"type":"json_object"}\'::JSON', {"type": "json_object"}),
    "response_format as text": ('\'{"type":"json_object"}\'', {"type": "json_object"}),
    "tools": (
        "[{'type': 'function', 'function': {'name': 'f', 'parameters': '{\"type\":\"object\"}'::JSON}}]",
        [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    ),
    "tool_choice": ("'auto'", "auto"),
    "tool_choice as object": (
        "{'type': 'function', 'function': {'name': 'f'}}",
        {"type": "function", "function": {"name": "f"}},
    ),
    "reasoning_effort": ("'high'", "high"),
    "metadata": ("MAP {'team': 'search'}", {"team": "search"}),
    "prompt_mode as an enum": ("'reasoning'::ENUM ('reasoning')", "reasoning"),
}


@pytest.mark.parametrize(("name", "value", "expected"), [(n.split()[0], *v) for n, v in OPTIONS.items()], ids=OPTIONS)
def test_option_column(con: duckdb.DuckDBPyConnection, name: str, value: str, expected: Any) -> None:
    """A column that is a field of the body is sent in that row's body, and a NULL in it is left out."""
    found = bodies(
        con,
        f"SELECT 1 AS custom_id, 'hi' AS prompt, {value} AS {name} "
        "UNION ALL BY NAME SELECT 2 AS custom_id, 'hi' AS prompt",
    )
    assert found[0] == {"messages": [{"role": "user", "content": "hi"}], name: expected}
    assert found[1] == {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(("name", "value", "expected"), [(n.split()[0], *v) for n, v in OPTIONS.items()], ids=OPTIONS)
def test_params(con: duckdb.DuckDBPyConnection, name: str, value: str, expected: Any) -> None:
    """The same field in params is sent in the body of every row."""
    assert body(con, "'hi' AS prompt", f"params := {{'{name}': {value}}}")[name] == expected


@pytest.mark.parametrize(
    "params",
    [
        "{'max_tokens': 5, 'temperature': 0}",
        '\'{"max_tokens": 5, "temperature": 0}\'',
        "MAP {'max_tokens': 5, 'temperature': 0}",
        '\'{"max_tokens": 5, "temperature": 0}\'::JSON',
    ],
    ids=["STRUCT", "text", "MAP", "JSON"],
)
def test_row_beats_params(con: duckdb.DuckDBPyConnection, params: str) -> None:
    """A row's own column beats params, and its NULL leaves params as they are."""
    found = bodies(
        con, "(VALUES (1, 'hi', 7), (2, 'hi', NULL)) v(custom_id, prompt, max_tokens)", f"params := {params}"
    )
    assert [(each["max_tokens"], each["temperature"]) for each in found] == [(7, 0), (5, 0)]


def test_params_beyond_the_described_fields(con: duckdb.DuckDBPyConnection) -> None:
    """A field that the API's text does not describe can be sent in params."""
    assert body(con, "'hi' AS prompt", "params := {'x_new_field': {'deep': [1, NULL]}}")["x_new_field"] == {
        "deep": [1, None]
    }


def test_max_tokens_reaches_the_model(con: duckdb.DuckDBPyConnection) -> None:
    """An answer that ran out of the row's own max_tokens is truncated, and the others are not."""
    found = answers(con, "(VALUES (1, 'a b c', 2), (2, 'a b c', NULL)) v(custom_id, prompt, max_tokens)")
    assert found == [("1", "truncated", "echo: a"), ("2", "ok", "echo: a b c")]


def test_response_format_reaches_the_model(con: duckdb.DuckDBPyConnection) -> None:
    """An answer that is JSON by the row's response_format comes back in the column output too."""
    submission_id = submitted(con, "SELECT 1 AS custom_id, 'hi' AS prompt, {'type': 'json_object'} AS response_format")
    (row,) = answered(con, submission_id)
    assert json.loads(row["output"]) == {"echo": "hi"}


def test_columns_that_are_not_sent(con: duckdb.DuckDBPyConnection) -> None:
    """Columns that are no field of the body are not in it."""
    assert body(con, "'hi' AS prompt, 'x' AS price, 3 AS id, 'y' AS \"a column\"") == {
        "messages": [{"role": "user", "content": "hi"}]
    }


def test_preview_needs_no_key_and_no_network(home: Path) -> None:
    """Preview works without a key and without a server, and writes nothing."""
    with duckdb_mistral.connect(settings={"home": home, "server_url": "http://127.0.0.1:9"}) as con:
        assert body(con, "'hi' AS prompt")["messages"][0]["content"] == "hi"
    assert not home.exists()


def test_preview_is_what_is_sent(con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path) -> None:
    """The lines of the uploaded file are the previewed bodies, each under its custom_id."""
    source = "SELECT range AS custom_id, 'prompt ' || range AS prompt, range AS max_tokens FROM range(1, 4)"
    previewed = rows(con, "FROM mistral_batch_preview($source)", {"source": source})
    (path,) = (home / "spool" / submitted(con, source)).glob("*.jsonl")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert {line["custom_id"]: line["body"] for line in lines} == {
        row["custom_id"]: json.loads(row["body"]) for row in previewed
    }


def test_several_models_of_one_source(emulator: Emulator, home: Path) -> None:
    """With a list of models the rows are uploaded once, and each model has a job and an answer to each row."""
    before = asked_for_money(emulator)
    with connect(emulator, home) as con:
        make_staging(con, 2)
        found = answered(con, submitted(con, arguments="model := ['ministral-3b-latest', 'ministral-8b-latest']"))
    assert sorted((row["custom_id"], row["model"]) for row in found) == [
        (custom_id, model) for custom_id in ("0", "1") for model in ("ministral-3b-latest", "ministral-8b-latest")
    ]
    assert asked_for_money(emulator) == (before[0] + 1, before[1] + 2)
