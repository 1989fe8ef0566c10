"""Writing down what the API says of many jobs: one look at what is known, and one UPDATE of what is new."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from duckdb_mistral.state.reading import cut
from duckdb_mistral.state.records import report_of, reported_values
from duckdb_mistral.state.tables import jobs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from duckdb_mistral.jobs.report import JobReport
    from duckdb_mistral.state.database import Database

#: A job without news is written once in so many microseconds, for the time alone.
CHECKED_EVERY = 60_000_000
#: What has to be still so when a job is written, as it was read to tell whether it is.
READ = (jobs.c.report, jobs.c.results, jobs.c.results_missing)


def record(database: Database, reports: Iterable[JobReport], *, anew: bool) -> None:
    """Write down reports of jobs that the ledger knows, as `Ledger.record` has it."""
    # Of two reports of one job, the one that tells its end counts.
    told = {report.job_id: report for report in sorted(reports, key=lambda one: (one.job_id, one.ended))}
    while told:
        known = _known(database, list(told))
        told = {row.job_id: told[row.job_id] for row in known}
        changed, checked = _to_be_written(known, told, anew=anew)
        if not changed and not checked:
            return
        if database.transact(partial(_write, changed, checked)) == len(changed):
            return


def _write(changed: list[dict[str, Any]], checked: list[dict[str, Any]], connection: sa.Connection) -> int:
    """Write the values of rows; return how many of the changed ones are as they were read, and so are written."""
    written = connection.execute(_update(), changed).rowcount if changed else 0
    if checked:
        connection.execute(_check(), checked)
    return written


def _known(database: Database, job_ids: Sequence[str]) -> list[sa.Row[Any]]:
    columns = (jobs.c.key, jobs.c.job_id, jobs.c.submission_id, jobs.c.request_count, jobs.c.checked_at, *READ)
    with database.kept_open():
        rows = [
            row for some in cut(job_ids) for row in database.rows(sa.select(*columns).where(jobs.c.job_id.in_(some)))
        ]
    # Two processes that write the same jobs in another order could wait for each other.
    return sorted(rows, key=lambda row: row.key)


def _to_be_written(
    known: Sequence[sa.Row[Any]], told: Mapping[str, JobReport], *, anew: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the values of rows of which something new is told, and of those that are checked again."""
    changed, checked = [], []
    for row in known:
        report = told[row.job_id]
        values = reported_values(report)
        if values["report"] == row.report and not _is_counted_now(row, report):
            age = values["checked_at"] - (row.checked_at or 0)
            if anew or not 0 <= age < CHECKED_EVERY:
                checked.append({"its_key": row.key, "checked_at": values["checked_at"]})
        elif report.ended or not _stays_ended(row, anew=anew):
            as_read = {f"read_{column.name}": getattr(row, column.name) for column in READ}
            changed.append({"its_key": row.key, "total": report.total_requests} | as_read | values)
    return changed, checked


def _is_counted_now(row: sa.Row[Any], report: JobReport) -> bool:
    """Tell whether a report tells the number of requests, which was not known."""
    unknown = row.submission_id is None or row.request_count == 0
    return unknown and report.total_requests not in (0, row.request_count)


def _stays_ended(row: sa.Row[Any], *, anew: bool) -> bool:
    """Tell whether a job stays ended although the API says that it is not."""
    report = report_of(row.report)
    if report is None or not report.ended:
        return False
    return not anew or (row.results is not None and row.results_missing == 0)


def _update() -> sa.Update:
    """Return the statement that writes reports of jobs that nobody has written since they were read.

    Run with many rows' values, it is one round trip; what it sets beside the count are those of them that are columns.
    """
    # The requests of another program's job are known from the API alone, which counts them when it begins; so are those
    # of a job that was found in the workspace before that.
    total = sa.bindparam("total", type_=sa.BigInteger)
    unknown = sa.or_(jobs.c.submission_id.is_(None), jobs.c.request_count == 0)
    counted = sa.case((sa.and_(unknown, total != 0), total), else_=jobs.c.request_count)
    as_read = (column.is_not_distinct_from(sa.bindparam(f"read_{column.name}", type_=column.type)) for column in READ)
    return jobs.update().where(jobs.c.key == sa.bindparam("its_key"), *as_read).values(request_count=counted)


def _check() -> sa.Update:
    """Return the statement that writes when jobs were checked."""
    return jobs.update().where(jobs.c.key == sa.bindparam("its_key"))
