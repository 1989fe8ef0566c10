"""Calls as people write them: columns twice, types of their own, = for :=, sources that not every DuckDB takes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support import answered, asked_for_money, connect, make_staging, rows, submitted

from duckdb_mistral.functions.arguments import submit_arguments
from duckdb_mistral.functions.statements import request_statement

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator

VERBS = ("preview", "estimate", "submit")
ONE_ROW = "SELECT 1 AS custom_id, 'x' AS prompt"


def body(con: duckdb.DuckDBPyConnection, source: str, arguments: str = "", *values: Any) -> Any:
    """Return the request body of a source of one row."""
    ((found,),) = con.execute(f"SELECT body FROM mistral_batch_preview($1{arguments})", [source, *values]).fetchall()
    return json.loads(found)


@pytest.mark.parametrize("verb", VERBS)
def test_columns_twice_that_mean_nothing(verb: str, con: duckdb.DuckDBPyConnection) -> None:
    """Columns that are not sent may be there twice, as those of a join are, whatever names DuckDB makes of them."""
    con.execute(
        "CREATE TABLE t AS SELECT 1 AS id, 'hi' AS text; CREATE TABLE c AS SELECT 1 AS id, 'x' AS id_1, 2 AS \"id:1\""
    )
    source = "SELECT t.id AS custom_id, t.text AS prompt, t.*, c.*, c.*, 3 AS ID FROM t JOIN c ON t.id = c.id"
    assert len(rows(con, f"FROM mistral_batch_{verb}($1)", [source])) == 1
    assert body(con, source) == {"messages": [{"role": "user", "content": "hi"}]}
    con.execute(f"CREATE TABLE made AS {source}")
    assert body(con, "made") == body(con, source)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("select", "named"),
    [
        ("1 AS custom_id, 2 AS custom_id, 'x' AS prompt", r"2 columns named custom_id \(custom_id, custom_id\)"),
        ("1 AS custom_id, 'x' AS prompt, 'y' AS Prompt", r"2 columns named prompt \(prompt, Prompt\)"),
        ("1 AS custom_id, 'x' AS prompt, 5 AS max_tokens, 6 AS MAX_TOKENS", "2 columns named max_tokens"),
        ("t.*, t.* FROM (SELECT 1 AS custom_id, 'x' AS prompt) t", "2 columns named custom_id"),
    ],
)
def test_columns_twice_that_mean_something(
    verb: str, select: str, named: str, con: duckdb.DuckDBPyConnection, emulator: Emulator
) -> None:
    """A column that means something and is there twice, in any case of letters, is named, and nothing is sent."""
    with pytest.raises(duckdb.Error, match=named):
        con.execute(f"FROM mistral_batch_{verb}($1)", [f"SELECT {select}"])
    assert asked_for_money(emulator) == (0, 0)


def test_output_of_own_types(con: duckdb.DuckDBPyConnection) -> None:
    """A declared output may speak of types that the caller has made: temporary, in a schema, nested, not committed."""
    con.execute("CREATE TYPE mood AS ENUM ('happy', 'it''s'); CREATE SCHEMA s; CREATE TYPE s.small AS ENUM ('q')")
    con.execute("CREATE TEMP TYPE mine AS ENUM ('t'); BEGIN; CREATE TYPE part AS STRUCT(x mood, y INTEGER[])")
    declared = "STRUCT(m mood, l mood[], n s.small, z mine, p part, q part[])"
    schema = body(con, ONE_ROW, ", output := $2", declared)["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["m"]["enum"] == ["happy", "it's", None]
    assert schema["properties"]["l"]["items"]["enum"] == ["happy", "it's"]
    assert schema["properties"]["n"]["enum"] == ["q", None]
    assert schema["properties"]["z"]["enum"] == ["t", None]
    assert schema["properties"]["q"]["items"]["properties"]["x"]["enum"] == ["happy", "it's", None]
    con.execute("COMMIT")
    make_staging(con, 1)
    submission_id = submitted(con, arguments="output := 'STRUCT(m mood)'")
    (answer,) = answered(con, submission_id)
    assert (answer["outcome"], answer["output"]["m"]) == ("ok", "happy")
    again = con.sql(f"SELECT output FROM mistral_batch_results('{submission_id}')")
    assert [str(kind) for kind in again.types] == ["STRUCT(m ENUM('happy', 'it''s'))"]


def test_output_of_a_type_that_nobody_has(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A type that does not exist is named by DuckDB, which knows the others, and nothing is sent."""
    con.execute("CREATE TYPE mood AS ENUM ('happy')")
    make_staging(con)
    with pytest.raises(duckdb.Error, match="Type with name moood does not exist!"):
        submitted(con, arguments="output := 'STRUCT(m moood)'")
    assert asked_for_money(emulator) == (0, 0)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ("ENUM", r"name its values, as in 'STRUCT\(mood ENUM\(''happy'', ''sad''\)\)'"),
        ("ENUM('a', 'b')", r"declare a STRUCT, such as 'STRUCT\(value ENUM\(''a'', ''b''\)\)'"),
        ("map", "the names of an answer's fields have to be known"),
        ("MAP(VARCHAR, INTEGER)", "the names of an answer's fields have to be known"),
        ("STRUCT(a MAP(VARCHAR, INTEGER))", "output has a as MAP.*the names of an answer's fields have to be known"),
        ("JSON", "does not say what an answer looks like.*json_object"),
        ("VARIANT", "does not say what an answer looks like.*json_object"),
        ("STRUCT", "name its fields"),
        ("LIST", "say what it holds"),
        ("UNION(a INTEGER)", "which has no strict form in JSON"),
        ("mood", r"such as 'STRUCT\(value ENUM\(''happy''\)\)'"),
    ],
)
def test_output_that_is_no_struct(declared: str, words: str, con: duckdb.DuckDBPyConnection) -> None:
    """A type that no answer can have is refused with what to write in its place."""
    con.execute("CREATE TYPE mood AS ENUM ('happy')")
    with pytest.raises(duckdb.InvalidInputException, match=words):
        con.execute("FROM mistral_batch_preview($1, output := $2)", [ONE_ROW, declared])


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ('{"type": [{"a": 1}]}', "which JSON Schema does not define"),
        ('{"type": {"a": 1}}', "which JSON Schema does not define"),
        ('{"type": "object", "properties": {"a": {"default": NaN}}}', "holds what JSON cannot hold"),
        ('{"type": "object", "title": "\\ud800"}', "holds what JSON cannot hold"),
        ('{"type": "object", "x": ' + "[" * 2000 + "]" * 2000 + "}", "more levels than can be read"),
    ],
)
def test_odd_schemas(schema: str, words: str, con: duckdb.DuckDBPyConnection) -> None:
    """A JSON schema that is none, or that JSON cannot hold, is refused in a sentence."""
    with pytest.raises(duckdb.InvalidInputException, match=words):
        con.execute("FROM mistral_batch_preview($1, output := $2)", [ONE_ROW, schema])


@pytest.mark.parametrize(
    "call",
    [
        *(f"mistral_batch_{verb}('staging', model = 'x')" for verb in VERBS),
        *("mistral_batch_submit('staging', force = true)", "mistral_batch_submit('staging', params = {'a': 1})"),
        *("mistral_batch_submit(source = 'staging')", "mistral_batch_submit('staging', max_cost = 5)"),
        *("mistral_batch_estimate('staging', pilot = 5)", "mistral_batch_results(id = 'abc')"),
    ],
)
def test_equals_sign(call: str, con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """An argument that is named by = ends in a sentence about :=, and nothing is sent."""
    make_staging(con)
    with pytest.raises(duckdb.InvalidInputException, match="Name arguments with :="):
        con.execute(f"FROM {call}")
    assert asked_for_money(emulator) == (0, 0)


def test_variants(con: duckdb.DuckDBPyConnection) -> None:
    """A VARIANT in params and metadata is what is in it, not the text of it."""
    arguments = ", params := {'stop': ['a', NULL]}::VARIANT, metadata := MAP {'k': 'v'}::VARIANT"
    assert body(con, ONE_ROW, arguments)["stop"] == ["a", None]


@pytest.mark.parametrize("source", ["PIVOT t ON k USING first(v)", "SELECT * FROM (PIVOT t ON k USING first(v))"])
def test_dynamic_pivot(source: str, con: duckdb.DuckDBPyConnection) -> None:
    """A PIVOT whose columns DuckDB has to find first is refused with two ways that work, which do."""
    con.execute("CREATE TABLE t AS FROM (VALUES (1, 'prompt', 'hello')) v(custom_id, k, v)")
    with pytest.raises(duckdb.InvalidInputException, match=r"Name the columns .* or make a table of it"):
        con.execute("FROM mistral_batch_preview($1)", [source])
    con.execute("CREATE TEMP TABLE pivoted AS PIVOT t ON k USING first(v)")
    assert body(con, "PIVOT t ON k IN ('prompt') USING first(v)") == body(con, "pivoted")


def test_a_call_in_its_own_source(con: duckdb.DuckDBPyConnection) -> None:
    """A preview of a preview works, or ends in a sentence where DuckDB takes it for a recursion; other calls nest."""
    make_staging(con, 1)
    inner = "mistral_batch_preview('staging')"
    if duckdb.__version__.startswith("1."):
        assert body(con, inner) == body(con, "staging")
    else:
        with pytest.raises(duckdb.InvalidInputException, match="The source calls mistral_batch_preview itself"):
            con.execute("FROM mistral_batch_preview($1)", [inner])
    con.execute("CREATE TEMP TABLE inner_rows AS FROM mistral_batch_preview('staging')")
    assert body(con, "inner_rows") == body(con, "staging")
    assert rows(con, "FROM mistral_batch_estimate($1)", [inner])[0]["requests"] == 1
    submission_id = submitted(con, inner)
    assert submission_id == submitted(con)
    answered(con, submission_id)
    answers = f"SELECT 'of ' || custom_id AS custom_id, content AS prompt FROM mistral_batch_results('{submission_id}')"
    assert [row["custom_id"] for row in answered(con, submitted(con, answers))] == ["of 0"]


def test_many_branches(con: duckdb.DuckDBPyConnection) -> None:
    """The rows of a UNION of many branches are held, so that what is done to them is prepared once; others pass."""
    given = {"endpoint": "/v1/chat/completions", "reuse": "submission", "timeout_hours": 24, "force": False}
    source = " UNION ALL ".join(f"SELECT {number} AS custom_id, 'x' AS prompt" for number in range(100))
    held = request_statement("submit", submit_arguments(given | {"source": source}, "model"))
    assert "source_rows AS MATERIALIZED (" in held
    assert "source_rows AS MATERIALIZED" not in request_statement(
        "submit", submit_arguments(given | {"source": "staging"}, "model")
    )
    assert len(rows(con, "FROM mistral_batch_preview($1)", [source])) == 100


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ("['a']", "messages without a role"),
        ("""'["a"]'""", "messages without a role"),
        ("[{'Role': 'user', 'content': 'x'}]", "messages without a role"),
        ("""'[{"Role": "user", "content": "x"}]'::JSON""", "messages without a role"),
        ("[MAP {'Role': 'user'}]", "messages without a role"),
        ("{'Role': 'user'}", "messages not given as a JSON list"),
        ("[{'role': 'user', 'content': 'x'}]", None),
        ("[MAP {'role': 'user', 'content': 'x'}]", None),
        ("""'[{"role": "user", "content": "x"}]'""", None),
        ("[{'role': 'user', 'content': 'x'}]::VARIANT", None),
        (r"""'[{"r\u006fle": "user", "content": "x"}]'""", None),
    ],
)
def test_messages(messages: str, words: str | None, con: duckdb.DuckDBPyConnection) -> None:
    """Messages that are no messages are told; each form that holds roles is sent."""
    source = f"SELECT 1 AS custom_id, {messages} AS messages"
    if words is None:
        assert body(con, source) == {"messages": [{"role": "user", "content": "x"}]}
    else:
        with pytest.raises(duckdb.InvalidInputException, match=words):
            con.execute("FROM mistral_batch_preview($1)", [source])


@pytest.mark.parametrize("others", ["", "SET lock_configuration = true", "SET enable_external_access = false"])
def test_without_local_files(
    others: str, con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path, tmp_path: Path
) -> None:
    """Where DuckDB's disabled_filesystems keeps results from being read, a submit sends nothing."""
    make_staging(con, 1)
    con.execute(f"SET temp_directory = ''; SET allowed_directories = ['{tmp_path}/']")
    con.execute("SET disabled_filesystems = 'LocalFileSystem'")
    con.execute(others)
    with pytest.raises(duckdb.PermissionException, match="LocalFileSystem has been disabled"):
        con.execute("FROM mistral_batch_submit('staging')")
    assert asked_for_money(emulator) == (0, 0)
    assert rows(con, "SELECT custom_id FROM mistral_batch_preview('staging')") == [{"custom_id": "0"}]
    with connect(emulator, home) as other:
        other.execute("SET disabled_filesystems = 'HTTPFileSystem'")
        make_staging(other, 1)
        assert answered(other, submitted(other))


def test_without_external_access(
    con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path, tmp_path: Path
) -> None:
    """A connection that may reach no files is told so before anything is sent, with the statement that lets it."""
    make_staging(con, 1)
    submission_id = submitted(con)
    before = rows(con, "FROM mistral_batch_wait($1)", [submission_id]) and answered(con, submission_id)
    paid = asked_for_money(emulator)
    with connect(emulator, home) as other:
        make_staging(other, 2)
        other.execute(f"SET allowed_directories = ['{tmp_path}/elsewhere/']; SET enable_external_access = false")
        calls = ("mistral_batch_submit('staging')", f"mistral_batch_results('{submission_id}')")
        for call in calls:
            with pytest.raises(duckdb.InvalidInputException, match="enable_external_access is false") as caught:
                other.execute(f"FROM {call}")
    assert asked_for_money(emulator) == paid
    (statement,) = re.findall(r"Run (SET allowed_directories = .*?) before", str(caught.value))
    with connect(emulator, home) as other:
        other.execute(statement)
        other.execute("SET enable_external_access = false")
        assert rows(other, f"FROM {calls[1]}") == before
        make_staging(other, 1)
        assert submitted(other) == submission_id
