"""The main path: a table of prompts in, a table of answers out, through the real SDK over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support import answered, asked_for_money, connect, environment_of, make_staging, rows, run_python, submitted

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

    from duckdb_mistral.emulator import Emulator


def test_answers_come_back_by_custom_id(con: duckdb.DuckDBPyConnection) -> None:
    """Every row of the staging table gets the answer to its own prompt."""
    make_staging(con, 5)
    found = answered(con, submitted(con))
    assert [(row["custom_id"], row["outcome"], row["content"]) for row in found] == [
        (str(number), "ok", f"echo: prompt {number}") for number in range(5)
    ]


def test_submit_row(con: duckdb.DuckDBPyConnection) -> None:
    """Submit returns one row per job, with the submission, the counts, and whether it had existed."""
    make_staging(con, 4)
    (row,) = rows(con, "FROM mistral_batch_submit('staging')")
    assert row["job_id"] != row["submission_id"]
    assert (row["part"], row["total_requests"], row["reused"]) == (1, 4, False)
    assert (row["model"], row["endpoint"]) == ("mistral-small-latest", "/v1/chat/completions")
    assert row["input_bytes"] > 0
    assert row["created_at"].tzinfo is not None


def test_status_row(con: duckdb.DuckDBPyConnection) -> None:
    """Status tells the API's words and counts of each job of the ledger."""
    make_staging(con, 4)
    submission_id = submitted(con, arguments="metadata := {team: 'search'}")
    con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
    (row,) = rows(con, "FROM mistral_batch_status()")
    assert row["submission_id"] == submission_id
    assert (row["status"], row["progress"]) == ("SUCCESS", 1.0)
    assert (row["total_requests"], row["completed_requests"], row["failed_requests"]) == (4, 4, 0)
    assert row["metadata"]["team"] == "search"
    assert row["checked_at"] is not None
    assert row["completed_at"] is not None


@pytest.mark.fault("F11")
def test_same_statement_again_costs_nothing(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A submit that runs again returns the job that exists."""
    make_staging(con)
    first = rows(con, "FROM mistral_batch_submit('staging')")
    again = rows(con, "FROM mistral_batch_submit('staging')")
    assert [row["job_id"] for row in again] == [row["job_id"] for row in first]
    assert [row["reused"] for row in (*first, *again)] == [False, True]
    assert asked_for_money(emulator) == (1, 1)


@pytest.mark.fault("F11")
def test_relation_printed_twice(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A relation that is printed twice submits once."""
    make_staging(con)
    relation = con.sql("FROM mistral_batch_submit('staging')")
    assert "submission_id" in str(relation)
    assert "submission_id" in str(relation)
    assert len(relation.fetchall()) == 1
    assert asked_for_money(emulator) == (1, 1)


@pytest.mark.fault("F12")
def test_explain_sends_nothing(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """EXPLAIN, DESCRIBE, PREPARE and a view that is only created send nothing."""
    make_staging(con)
    con.execute("EXPLAIN FROM mistral_batch_submit('staging')")
    con.execute("DESCRIBE FROM mistral_batch_submit('staging')")
    con.execute("PREPARE later AS FROM mistral_batch_submit('staging')")
    con.execute("CREATE TEMP VIEW jobs AS FROM mistral_batch_submit('staging')")
    assert emulator.witness()["requests"] == {}
    assert con.execute("EXECUTE later").fetchall()
    assert asked_for_money(emulator) == (1, 1)


@pytest.mark.fault("F12")
def test_no_row_wanted(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A submit of which no row is wanted sends nothing, or what it sends is sent once."""
    make_staging(con)
    for query in (
        "FROM mistral_batch_submit('staging') LIMIT 0",
        "SELECT CASE WHEN false THEN (SELECT any_value(job_id) FROM mistral_batch_submit('staging')) END",
        "SELECT count(*) FROM mistral_batch_submit('staging')",
    ):
        con.execute(query).fetchall()
        con.execute(query).fetchall()
    assert asked_for_money(emulator) == (1, 1)


def test_second_process_and_finished_job(con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path) -> None:
    """Another process that submits the same content gets the job, also once it has finished."""
    make_staging(con)
    submission_id = submitted(con)
    code = """
import duckdb, duckdb_mistral
duckdb_mistral.register()
duckdb.sql("CREATE TABLE s AS SELECT range::VARCHAR AS custom_id, 'prompt ' || range AS prompt FROM range(3)")
print(duckdb.sql("SELECT submission_id, reused FROM mistral_batch_submit('s')").fetchall())
"""
    for _ in range(2):
        child = run_python(code, environment_of(emulator, home))
        assert child.stdout.strip() == f"[('{submission_id}', True)]", child.stderr
        answered(con, submission_id)
    assert asked_for_money(emulator) == (1, 1)


def test_results_are_read_once(con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path) -> None:
    """A second read of the results, in this process or another, asks the server for nothing."""
    make_staging(con)
    submission_id = submitted(con)
    expected = answered(con, submission_id)
    before = emulator.witness()["requests"]
    with connect(emulator, home) as other:
        assert rows(other, f"FROM mistral_batch_results('{submission_id}') ORDER BY custom_id") == expected
    assert emulator.witness()["requests"] == before


@pytest.mark.parametrize(
    ("after", "count"),
    [
        ("'-infinity'::TIMESTAMPTZ", 1),
        ("TIMESTAMP '0001-01-01 (BC)'", 1),
        ("NULL", 1),
        ("now() - INTERVAL 1 DAY", 1),
        ("now() + INTERVAL 1 DAY", 0),
        ("DATE '20000-01-01'", 0),
        ("'infinity'::TIMESTAMPTZ", 0),
    ],
)
def test_jobs_created_after(con: duckdb.DuckDBPyConnection, after: str, count: int) -> None:
    """The workspace's jobs are filtered by any time that DuckDB has."""
    submitted(con, "SELECT 1 AS custom_id, 'a' AS prompt")
    assert len(rows(con, f"FROM mistral_batch_jobs(created_after := {after})")) == count
