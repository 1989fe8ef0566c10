"""Jobs as the command line shows them: which requests failed, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from duckdb_mistral.duck.quoting import literal, literals
from duckdb_mistral.jobs.failures import MOST_NAMED, sentence
from duckdb_mistral.jobs.report import ENDED, PENDING, Status

if TYPE_CHECKING:
    import duckdb

#: The columns that a person looks at first; csv and jsonl hold every column.
SUBMIT_COLUMNS = "submission_id, job_id, part, status, model, total_requests AS requests, reused"
STATUS_COLUMNS = (
    "submission_id, job_id, part, status, model, completed_requests || '/' || total_requests AS requests, "
    "failed_requests AS failed"
)
_WORD = "upper(trim(status))"
#: Whether a job has ended: by its status, or by its completion time if the status is unknown.
_ENDED = f"({_WORD} IN ({literals(ENDED)}) OR ({_WORD} NOT IN ({literals(PENDING)}) AND completed_at IS NOT NULL))"
#: What the rows of a job table say about requests that will get no answer.
_LEFT = f"""
SELECT
  coalesce(submission_id, job_id) AS id,
  sum(total_requests)::BIGINT AS total,
  sum(CASE WHEN {_ENDED} THEN failed_requests ELSE 0 END)::BIGINT AS failed,
  sum(CASE
    WHEN {_ENDED} AND {_WORD} <> {literal(Status.SUCCESS)} THEN greatest(total_requests - completed_requests, 0) ELSE 0
  END)::BIGINT AS unasked
FROM shown_rows GROUP BY id ORDER BY id
"""


def tell_failures(connection: duckdb.DuckDBPyConnection) -> bool:
    """Say on standard error what the ended jobs just shown left undone; return whether they left anything."""
    rows = connection.execute(_LEFT).fetchall()
    left = [name for name, _, failed, unasked in rows if failed or unasked]
    if not left:
        return False
    total, failed, unasked = (sum(row[place] for row in rows) for place in (1, 2, 3))
    click.echo(sentence(failed, unasked, total), err=True)
    for name in left[:MOST_NAMED]:
        click.echo(
            f"Which and why: duckdb-mistral results {name}\nSend them again: duckdb-mistral retry {name}", err=True
        )
    if len(left) > MOST_NAMED:
        click.echo(f"The same applies to {len(left) - MOST_NAMED:,} more.", err=True)
    return True


def goes_on(connection: duckdb.DuckDBPyConnection, identifier: str) -> bool:
    """Tell whether the API says that a job of an id has not ended yet."""
    rows = connection.execute(f"SELECT 1 FROM mistral_batch_status($id) WHERE NOT {_ENDED}", {"id": identifier})
    return rows.fetchone() is not None
