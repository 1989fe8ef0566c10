"""The rows that came back, held against the requests that were submitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from duckdb_mistral.duck.jsonl import JUST_IDS
from duckdb_mistral.duck.quoting import literal
from duckdb_mistral.duck.sql_files import template
from duckdb_mistral.errors import IncompleteResultsError
from duckdb_mistral.requests.keys import read_keys
from duckdb_mistral.results.strangers import MOST, sentence
from duckdb_mistral.state.names import keys_path

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

    from duckdb_mistral.jobs.job import Job


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How the rows of the files compare with what was submitted."""

    held: int
    missing: int
    unknown: int
    repeated: int
    #: Requests of the job of which not even the custom_id is known.
    unnamed: int = 0

    @property
    def clean(self) -> bool:
        """Whether every custom_id is there exactly once, and nothing else."""
        return not (self.missing or self.unknown or self.repeated)


@dataclass(frozen=True)
class Submitted:
    """A SELECT of the submitted custom_ids, and how many they are where it is known that none is there twice."""

    select: str
    count: int | None = None

    def distinct_count(self, engine: duckdb.DuckDBPyConnection) -> int | None:
        """Return how many custom_ids the view `submitted` has; None where one is there twice, or NULL."""
        if self.count is not None:
            return self.count
        ((rows, ids),) = engine.execute("SELECT count(*), count(DISTINCT custom_id) FROM submitted").fetchall()
        return int(rows) if rows == ids else None


def submitted_ids(engine: duckdb.DuckDBPyConnection, job: Job, path: Path | None) -> Submitted | None:
    """Return the submitted custom_ids, or None where they cannot be had."""
    if path is None:
        return None
    if path.suffix == ".parquet":
        return Submitted(f"SELECT custom_id FROM read_parquet({literal(path)})")
    keys = read_keys(path)
    if keys is not None and len(keys) == job.request_count:
        engine.register("submitted_keys", keys)
        return Submitted("SELECT custom_id FROM submitted_keys", len(keys))  # else the submit was refused
    if path == keys_path(path):
        return None
    return Submitted(f"SELECT custom_id FROM read_json({literal(path)}, {JUST_IDS}, maximum_object_size = 536870912)")


def ids_of(read: Path) -> str:
    """Return a SELECT of the custom_ids that came back, for a job whose requests are not known."""
    return (
        f"SELECT DISTINCT custom_id FROM read_parquet({literal(read)}) WHERE custom_id IS NOT NULL UNION ALL "
        # Of another program's requests without one each has its row; a line that is not JSON is nobody's.
        f"SELECT custom_id FROM read_parquet({literal(read)}) WHERE custom_id IS NULL AND response IS NOT NULL"
    )


def same_ids(engine: duckdb.DuckDBPyConnection, read: Path, rows: int, submitted: Submitted) -> bool:
    """Tell whether the custom_ids of so many rows are exactly those submitted.

    They are if as many came back as were submitted, none of these twice, and each of these is among them.
    """
    if rows != submitted.distinct_count(engine):
        return False
    ((held,),) = engine.execute(
        f"SELECT count(*) FROM submitted SEMI JOIN read_parquet({literal(read)}) AS returned USING (custom_id)"
    ).fetchall()
    return bool(held == rows)


def all_held(count: int) -> Tally:
    """Return the tally of results in which each of so many requests has its row."""
    return Tally(held=count, missing=0, unknown=0, repeated=0)


def promised_rows(job: Job, submitted: int | None) -> int:
    """Return how many rows the job's counts say that its files hold; `submitted` are the requests that are known."""
    report = job.report
    if report is None:
        return 0
    counted = max(report.completed_requests, report.succeeded_requests + report.failed_requests)
    if submitted is None:
        return counted
    # What was not counted here may have been found before the API counted it.
    counted_here = job.request_count if job.submission_id is not None else 0
    requests = max(counted_here or report.total_requests, submitted)
    return requests if not counted and report.word == "SUCCESS" else min(counted, requests)


def tally_of(engine: duckdb.DuckDBPyConnection, read: Path, rows: int, submitted: Submitted | None) -> Tally:
    """Compare the rows that came back with the view `submitted`; `submitted` is None where only the rows tell it."""
    if submitted is not None and same_ids(engine, read, rows, submitted):
        return all_held(rows)
    return Tally(**_row(engine, template("verify").substitute(results=literal(read))))


def check_promise(job: Job, tally: Tally, strangers: str | None, *, all_known: bool, has_files: bool) -> None:
    """Raise IncompleteResultsError where fewer rows came back than the job's counts promise.

    `all_known` tells whether the submitted custom_ids are known, `has_files` whether there was a result file.
    """
    promised = promised_rows(job, tally.held + tally.missing if all_known else None)
    if tally.held >= promised:
        return
    if not has_files and (job.report is None or not (job.report.output_file or job.report.error_file)):
        raise IncompleteResultsError(
            f"Job {job.job_id} counts {promised:,} answers but names no result file. Nothing was kept. Run the "
            "statement again in a moment, in case the API names one late. Answers that the API gives inline, "
            "with the job itself, are not read."
        )
    raise IncompleteResultsError(
        f"The result files of job {job.job_id} hold {tally.held:,} of the {promised:,} rows that its "
        f"counts promise. {f'{strangers} ' if strangers else ''}Nothing was kept. Run the statement again to "
        "download them again, or read what there is with partial := true."
    )


def view_submitted(engine: duckdb.DuckDBPyConnection, select: str) -> None:
    """Let `submitted` be a view of the submitted custom_ids, with which the templates compare."""
    engine.execute(f"CREATE OR REPLACE TEMP VIEW submitted AS {select}")


def strangers_of(engine: duckdb.DuckDBPyConnection, job: Job, read: Path) -> str:
    """Return what is told of the custom_ids that came back and were never sent."""
    select = template("strangers").substitute(results=literal(read), most=MOST)
    ((count, named),) = engine.execute(select).fetchall()
    return sentence(job.job_id, count, [(each["custom_id"], each["meant"]) for each in named])


def _row(engine: duckdb.DuckDBPyConnection, select: str) -> dict[str, Any]:
    result = engine.execute(select)
    names = [column[0] for column in result.description or ()]
    return dict(zip(names, result.fetchone() or (), strict=True))
