"""What may still come of jobs that have ended: kept results with rows that have no answer are not the last word.

An end may be reported before its counts and files, files may be written after a bad end, and a status may be taken
back. So kept results remember what the API had said when they were made; the job is asked for again when such results
are read, and always before a row of it is paid for once more.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from duckdb_mistral.batches.again import LOOKS, pauses_between_looks
from duckdb_mistral.batches.gone import certainly_gone
from duckdb_mistral.batches.refresh import refresh_ended
from duckdb_mistral.errors import ApiError, AuthenticationError, SettingError
from duckdb_mistral.jobs.job import now
from duckdb_mistral.results.generations import count_rows, left_in
from duckdb_mistral.results.responses import kept_results

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.duck.engine import SharedEngine
    from duckdb_mistral.jobs.job import Job

#: Late words come soon after the end: a job is asked for the more rarely the older it is, after this share of its age.
SHARE_OF_AGE = 1 / 1000


def missing_in(context: Context, engine: SharedEngine, job: Job) -> int:
    """Return how many rows of a job's kept results have no answer; 0 where none are kept."""
    kept = kept_results(context.home, job)
    if kept is None:
        return 0
    if job.results_missing is None:  # in the ledger of an older version, or in one that was rebuilt
        with engine.one() as opened:
            missing = count_rows(opened, [kept], "outcome = 'missing'")
        if context.ledger.writable:
            context.ledger.count_missing(job, missing)
        return missing
    return job.results_missing


def ask_to_read(context: Context, engine: SharedEngine, jobs: Sequence[Job]) -> list[Job]:
    """Ask for the jobs whose kept results have rows without an answer, if the API answers; return all jobs as they are.

    Nothing is waited for: what is kept can be read without the API.
    """
    due = [job for job in jobs if _is_due(job) and missing_in(context, engine, job)]
    if not due or not context.ledger.writable:
        return list(jobs)
    with suppress(ApiError, SettingError), context.retry.within(0):
        refresh_ended(context, due)
    return context.ledger.jobs_by_key([job.key for job in jobs])


def ask_to_pay(context: Context, engine: SharedEngine, jobs: Sequence[Job]) -> list[Job]:
    """Ask for the ended jobs that have left rows, before these are sent again; return all jobs as they are now.

    Raises ApiError if the API does not answer.
    """
    left = [job for job in jobs if job.ended and job.job_id is not None and _has_left(context, engine, job)]
    ask_anew(context, left)
    return context.ledger.jobs_by_key([job.key for job in jobs])


def ask_anew(context: Context, jobs: Sequence[Job]) -> None:
    """Ask for jobs that have ended, before their requests are paid for again; raises ApiError where that fails.

    A job that is told to have failed, and not when, may still run: it is asked for several times over a moment.
    """
    pauses = pauses_between_looks(context.settings.reconcile_seconds)
    _ask_once(context, jobs)
    for _ in range(LOOKS - 1):
        jobs = [job for job in context.ledger.jobs_by_key([job.key for job in jobs]) if _may_run(job)]
        if not jobs or not context.settings.reconcile_seconds:
            return
        context.retry.pause(next(pauses))
        _ask_once(context, jobs)


def _may_run(job: Job) -> bool:
    return job.ended_badly and job.report is not None and job.report.completed_at is None


def _ask_once(context: Context, jobs: Sequence[Job]) -> None:
    asked = refresh_ended(context, jobs)
    trouble = asked.trouble
    if trouble is None:
        try:
            certainly_gone(context, asked.gone)
        except AuthenticationError:
            raise
        except ApiError as error:
            trouble = str(error)
    if trouble is not None:
        raise ApiError(
            f"{trouble} Nothing was sent: requests that have no answer here may have been answered since, and "
            "would be paid for twice. Run the statement again once the API answers."
        )


def has_changed(job: Job) -> bool:
    """Tell whether what the API says of a job has changed since its kept results were made."""
    return job.report is not None and job.ended and job.results_told != job.report.told


def owes(job: Job, missing: int) -> bool:
    """Tell whether the counts of a job promise more rows than its kept results hold, of which some are missing."""
    report = job.report
    if report is None:
        return False
    counted = max(report.completed_requests, report.succeeded_requests + report.failed_requests)
    return counted > max(job.request_count, report.total_requests) - missing


def _is_due(job: Job) -> bool:
    if not job.ended or job.job_id is None or job.results is None or job.results_missing == 0:
        return False
    age = now() - (job.checked_at or 0)
    return not 0 <= age < (now() - job.created_here_at) * SHARE_OF_AGE


def _has_left(context: Context, engine: SharedEngine, job: Job) -> bool:
    kept = kept_results(context.home, job)
    if kept is None:
        return True
    with engine.one() as opened:
        return left_in(opened, [kept]) > 0
