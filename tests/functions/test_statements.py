"""The statements that a call stands for: the source goes in verbatim, and only as one SELECT."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest

from duckdb_mistral.batches.collect import Family
from duckdb_mistral.duck.quoting import literal
from duckdb_mistral.errors import ArgumentError
from duckdb_mistral.functions.arguments import submit_arguments
from duckdb_mistral.functions.statements import (
    PREVIEW_COLUMNS,
    refusal,
    request_statement,
    results_statement,
    source_sql,
)
from duckdb_mistral.results.columns import COLUMNS

if TYPE_CHECKING:
    from pathlib import Path

SOURCES = {
    "staging": "FROM staging",
    ' "a b"."c;d" ; ': 'FROM "a b"."c;d"',
    "my-table": 'FROM "my-table"',
    "checkpoint": "FROM checkpoint",
    "select": 'FROM "select"',
    "FROM t;;": "FROM t",
    "t -- it's; so": "FROM t -- it's; so",
    "SELECT 1; -- it's; so": "SELECT 1",
    "SELECT ';--' AS x": "SELECT ';--' AS x",
    "SELECT $$;--$$;": "SELECT $$;--$$",
    "SELECT 1 /* ;-- */ + 1": "SELECT 1 /* ;-- */ + 1",
    "SELECT x'ab' AS y": "SELECT x'ab' AS y",
    "VALUES (1), (2);": "VALUES (1), (2)",
    "read_csv('a;b.csv')": "FROM read_csv('a;b.csv')",
    "a JOIN b USING (c)": "FROM a JOIN b USING (c)",
    "DESCRIBE t": "DESCRIBE t",
}
REFUSED = [
    *("", ";", "-- t", "SELECT 1; SELECT 2", "t; DROP TABLE t", "DROP TABLE t", "SELECT 1) UNION (SELECT 2"),
    *(
        "SELECT (1",
        "one two three four",
        "EXPLAIN SELECT 1",
        "SELECT 1 /* open",
        "SELECT 'open",
        "INSERT INTO t FROM u",
    ),
    *("COPY t TO 'x'", "SET x = 1", "PRAGMA version", "ATTACH 'x'", "CALL f()", "BEGIN; FROM t", "a;b"),
]


@pytest.mark.parametrize(("source", "query"), SOURCES.items())
def test_source(source: str, query: str) -> None:
    """A name or one SELECT goes in as it is, in brackets, without what follows its end."""
    assert source_sql(source) == f"(\n{query}\n)"


@pytest.mark.parametrize("source", REFUSED)
def test_refused_source(source: str) -> None:
    """What is neither is refused by its text."""
    with pytest.raises(ArgumentError, match="source must be the name of a table or view, or the text of one SELECT"):
        source_sql(source)


@pytest.mark.parametrize("source", ["tickets new", " my  table "])
def test_two_words(source: str) -> None:
    """Two bare words are refused, since they may be a table and an alias or a name with a space, and quotes help."""
    with pytest.raises(ArgumentError, match="two words are a table and another name for it, or one name with a space"):
        source_sql(source)
    assert source_sql("TABLE tickets") == "(\nTABLE tickets\n)"


def test_long_source_is_cut() -> None:
    """A sentence shows the beginning of a long text alone."""
    with pytest.raises(ArgumentError) as caught:
        source_sql("SELECT 1; SELECT " + "x" * 10_000)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["submit", "preview"])
@pytest.mark.parametrize("source", ["staging", "SELECT 1 AS custom_id, '$body' AS prompt -- c"])
def test_request_statements_are_one_select(name: str, source: str) -> None:
    """The statement of a submit or a preview is one SELECT that holds the source as it is."""
    given = {
        "source": source,
        "endpoint": "/v1/chat/completions",
        "reuse": "submission",
        "timeout_hours": 24,
        "force": False,
        "metadata": {"team": "it's $x"},
        "system": "it's $y",
        "params": {"stop": ["'"]},
    }
    statement = request_statement(name, submit_arguments(given, "model"))
    with duckdb.connect() as engine:
        (parsed,) = engine.extract_statements(statement)
    assert parsed.type == duckdb.StatementType.SELECT
    assert source in statement


def test_results_of_nothing() -> None:
    """Without files there are the columns of the contract and no rows."""
    with duckdb.connect() as engine:
        result = engine.execute(f"SELECT column_name, column_type FROM (DESCRIBE {results_statement([])})").fetchall()
        assert result == list(COLUMNS.items())
        assert engine.execute(results_statement([])).fetchall() == []


def test_results_of_files(tmp_path: Path) -> None:
    """The scan names its columns and its files, whatever is in their names."""
    paths = [tmp_path / "it's.parquet", tmp_path / "b.parquet"]
    with duckdb.connect() as engine:
        columns = ", ".join(f"NULL::{kind} AS {name}" for name, kind in COLUMNS.items())
        for path in paths:
            engine.execute(f"COPY (SELECT {columns}) TO {literal(path)} (FORMAT parquet)")
        families = [Family(model="m", generations=((path,),)) for path in paths]
        assert len(engine.execute(results_statement(families)).fetchall()) == 2


def test_refusal() -> None:
    """A refusal has the columns that it would have had, binds, and ends with the sentence when it runs."""
    statement = refusal(PREVIEW_COLUMNS, "It's 100% $refused.")
    with duckdb.connect() as engine:
        assert engine.execute(f"SELECT column_name, column_type FROM (DESCRIBE {statement})").fetchall() == list(
            PREVIEW_COLUMNS.items()
        )
        with pytest.raises(duckdb.InvalidInputException) as caught:
            engine.execute(statement).fetchall()
    assert str(caught.value) == "Invalid Input Error: It's 100% $refused."
