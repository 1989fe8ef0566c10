"""Contenders: from a downloaded result file to a table."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.clock import Clock
from benchmarks.shared import ended_job

#: The table whose rows were sent: their ids.
_SENT = (
    "CREATE TABLE sent AS SELECT custom_id FROM "
    "read_json('{requests}', format = 'newline_delimited', columns = {{custom_id: 'VARCHAR', body: 'JSON'}})"
)


def read_floor(_: Path, given: dict[str, Any]) -> Clock:
    """DuckDB's read_json straight into a table, the response's body as JSON."""
    import duckdb

    with duckdb.connect(":memory:") as connection:
        clock = Clock()
        with clock.step("read"):
            connection.execute(
                f"CREATE TABLE answers AS FROM read_json('{given['results']}', format = 'newline_delimited', columns = "
                "{id: 'VARCHAR', custom_id: 'VARCHAR', response: 'STRUCT(status_code INTEGER, body JSON)', "
                "error: 'JSON'})"
            )
    return clock


def read_detected(_: Path, given: dict[str, Any]) -> Clock:
    """DuckDB's read_json straight into a table, its columns found by itself."""
    import duckdb

    with duckdb.connect(":memory:") as connection:
        clock = Clock()
        with clock.step("read"):
            connection.execute(f"CREATE TABLE answers AS FROM read_json('{given['results']}')")
    return clock


def read_verified(work: Path, given: dict[str, Any]) -> Clock:
    """Turn the result file into verified Parquet, and that into a table of custom_id, outcome and content."""
    return _read_verified(work, given, "CREATE TABLE answers AS SELECT custom_id, outcome, content FROM ({query})")


def read_everything(work: Path, given: dict[str, Any]) -> Clock:
    """Turn the result file into verified Parquet, and that into a table of all columns, responses included."""
    return _read_verified(work, given, "CREATE TABLE answers AS FROM ({query})")


def read_by_hand(_: Path, given: dict[str, Any]) -> Clock:
    """Join the answers, as DuckDB's read_json with its columns named reads them, to the table that was sent.

    It checks nothing: a missing, repeated or foreign row, an error or a list of chunks passes without a word.
    """
    import duckdb

    with duckdb.connect(":memory:") as connection:
        connection.execute(_SENT.format(requests=given["requests"]))
        clock = Clock()
        with clock.step("read"):
            connection.execute(
                "CREATE TABLE joined AS SELECT sent.*, response.body.choices[1].message.content AS content FROM sent "
                f"JOIN read_json('{given['results']}', format = 'newline_delimited', columns = {{custom_id: 'VARCHAR', "
                "response: 'STRUCT(body STRUCT(choices STRUCT(message STRUCT(content VARCHAR))[]))'}) "
                "USING (custom_id)"
            )
        rows = connection.execute("SELECT count(content) FROM joined").fetchone()
    assert rows == (given["rows"],)
    return clock


def read_joined(work: Path, given: dict[str, Any]) -> Clock:
    """Turn the result file into verified Parquet, and join its content to the table that was sent."""
    statement = "CREATE TABLE joined AS SELECT sent.*, content FROM sent JOIN ({query}) USING (custom_id)"
    return _read_verified(work, given, statement, before=_SENT.format(requests=given["requests"]))


def _read_verified(work: Path, given: dict[str, Any], statement: str, *, before: str = "") -> Clock:
    import duckdb

    from duckdb_mistral.batches.collect import Family
    from duckdb_mistral.duck.engine import SharedEngine
    from duckdb_mistral.functions.statements import results_statement
    from duckdb_mistral.results.convert import ResultFiles, write_results
    from duckdb_mistral.results.responses import register_lines
    from duckdb_mistral.state.names import line_path

    pa.array([1])  # Arrow's first list imports pandas, where that is installed
    target = work / "results.parquet"
    answers = work / "answers.jsonl"
    answers.hardlink_to(given["results"])
    files = ResultFiles(answers=(answers,), submitted=Path(given["requests"]))
    with duckdb.connect(":memory:") as connection, closing(SharedEngine()) as engines:
        register_lines(connection)
        connection.execute(before)
        engines.open_ahead()  # as while a file is downloaded
        with engines.one():
            clock = Clock()
        with clock.step("verify"):
            with engines.one(work / "spill") as engine:
                written = write_results(engine, ended_job(given["rows"]), files, target, partial=False)
            engines.close()
            for number, path in enumerate(written.lines):
                path.replace(line_path(target, number))
        with clock.step("read"):
            query = results_statement([Family(model="mistral-small-latest", generations=((target,),))])
            connection.execute(statement.format(query=query)).fetchall()
    assert written.tally.clean
    assert written.tally.held == given["rows"]
    clock.figures["bytes"] = target.stat().st_size
    return clock
