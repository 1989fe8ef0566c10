"""Results where people go on with them: a relation, Arrow, pandas, Polars; and sources that are such frames."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from support import answered, asked_for_money, make_staging, rows, submitted

import duckdb_mistral

if TYPE_CHECKING:
    import duckdb

    from duckdb_mistral.emulator import Emulator

QUERY = """
SELECT custom_id, outcome, content, status_code, total_tokens, response, embedding
FROM mistral_batch_results('{}') ORDER BY custom_id
"""
CONTENTS = ["echo: prompt 0", "echo: prompt 1", "echo: prompt 2"]


@pytest.fixture
def results(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
    """Return the results of three rows as a relation."""
    make_staging(con)
    submission_id = submitted(con)
    answered(con, submission_id)
    return con.sql(QUERY.format(submission_id))


def test_relation(results: duckdb.DuckDBPyRelation, emulator: Emulator) -> None:
    """A relation can be filtered, joined and read again and again, and the server is not asked again."""
    before = emulator.witness()["requests"]
    assert results.filter("custom_id = '1'").project("content").fetchall() == [("echo: prompt 1",)]
    assert results.aggregate("count(*)").fetchall() == [(3,)]
    assert emulator.witness()["requests"] == before


def test_arrow(results: duckdb.DuckDBPyRelation) -> None:
    """Arrow gets columns of their own types."""
    table = results.to_arrow_table()
    assert table["content"].to_pylist() == CONTENTS
    types = {field.name: field.type for field in table.schema}
    assert (types["content"], types["status_code"], types["total_tokens"]) == (pa.string(), pa.int32(), pa.int64())
    assert types["embedding"] == pa.list_(pa.float32())


def test_pandas(results: duckdb.DuckDBPyRelation) -> None:
    """Pandas gets a frame of the answers."""
    frame = results.df()
    assert isinstance(frame, pd.DataFrame)
    assert frame["content"].tolist() == CONTENTS
    assert frame["total_tokens"].dtype == "int64"


def test_polars(results: duckdb.DuckDBPyRelation) -> None:
    """Polars gets a frame of the answers, with lists and numbers."""
    frame = results.pl()
    assert frame["content"].to_list() == CONTENTS
    assert frame.schema["total_tokens"] == pl.Int64
    assert frame.schema["embedding"] == pl.List(pl.Float32)


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow"])
def test_frame_as_source(kind: str, con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A frame in scope is a source by its name; the same rows as a table find the same job."""
    columns = {"custom_id": ["0", "1", "2"], "prompt": ["prompt 0", "prompt 1", "prompt 2"]}
    frame = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "arrow": pa.table}[kind](columns)  # noqa: F841  found by DuckDB
    (row,) = con.sql("SELECT total_requests, reused FROM mistral_batch_submit('frame')").fetchall()
    assert row == (3, False)
    make_staging(con)
    assert rows(con, "SELECT reused FROM mistral_batch_submit('staging')") == [{"reused": True}]
    assert asked_for_money(emulator) == (1, 1)


def test_cursors_and_threads(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """Cursors in threads, each registered, submit the same table once and read the same answers."""
    make_staging(con)

    def work(_: int) -> list[str]:
        cursor = con.cursor()
        duckdb_mistral.register(cursor)
        return [row["content"] for row in answered(cursor, submitted(cursor))]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [CONTENTS] * 4
    assert asked_for_money(emulator) == (1, 1)
