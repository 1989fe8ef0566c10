"""What results leave to be done: the requests that failed or have no answer, found and written again by DuckDB."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duckdb_mistral.duck.engine import keep_build_sides, own_engine
from duckdb_mistral.duck.jsonl import register_requests
from duckdb_mistral.duck.quoting import literals
from duckdb_mistral.duck.sql_files import template
from duckdb_mistral.requests.line import request_line
from duckdb_mistral.results.responses import kept_rows, register_lines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import duckdb

    from duckdb_mistral.requests.spool import Spool

#: What a retry sends again. A truncated answer is an answer: sent again unchanged, it would be truncated again.
LEFT = "outcome IN ('error', 'missing')"


def left_in(engine: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> int:
    """Return how many rows of results files are left to be done, as an engine of our own counts them."""
    return count_rows(engine, files, LEFT)


def count_rows(engine: duckdb.DuckDBPyConnection, files: Sequence[Path], condition: str) -> int:
    """Return of how many rows of results files a condition holds, as an engine of our own counts them."""
    counted = engine.execute(f"SELECT count(*) FROM read_parquet([{literals(files)}]) WHERE {condition}").fetchall()
    return int(counted[0][0])


def union_of(generations: Sequence[Sequence[Path]], columns: str) -> str:
    """Return a SELECT of results files, each custom_id from the latest generation that has its answer, if any."""
    first, *retries = generations
    if not retries:
        return template("results").substitute(columns=columns, rows=kept_rows(first))
    numbered = " UNION ALL ".join(
        f"SELECT *, {number} AS generation FROM {kept_rows(files)}" for number, files in enumerate(retries)
    )
    return template("retried_results").substitute(columns=columns, rows=kept_rows(first), retries=numbered, left=LEFT)


def spool_left(requests: Sequence[Path], generations: Sequence[Sequence[Path]], spool: Spool) -> str | None:
    """Write the request lines of `requests` that are left into `spool`; return their fingerprint, or None."""
    # Request files are our own, or an input file of another program's: the same lines either way.
    statement = template("left_requests").substitute(
        line=request_line(), results=union_of(generations, "custom_id, outcome"), left=LEFT
    )
    with own_engine(spool.spill) as engine:
        register_lines(engine)
        register_requests(engine, "request_lines", requests)
        spool.create_function(engine)
        keep_build_sides(engine)
        ((fingerprint, _),) = engine.execute(statement).fetchall()
    return None if fingerprint is None else str(fingerprint)
