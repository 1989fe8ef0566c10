"""Making sure that the workspace no longer has a file or a job, before requests are paid for again.

A 404 may come from something in between, and what was written a moment ago may not be found yet. So they are
looked for several times, by themselves and in the list, and what is young does not count as gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from duckdb_mistral.api.listing import read
from duckdb_mistral.batches.again import LOOKS, pauses_between_looks
from duckdb_mistral.errors import ApiError, AuthenticationError, IncompleteResultsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duckdb_mistral.api.listing import Listing
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job

SECOND = 1_000_000


def certainly_gone(context: Context, jobs: Sequence[Job]) -> set[int]:
    """Return the keys of those jobs, unknown to the API one by one, that its list has not either; record the others.

    A 404 alone may come from something in between, and a list may lag: requests would be paid for that a job is at work
    on. Raises ApiError where the list fails, or may be cut, and where a job was created, or seen running, less than
    reconcile_seconds ago.
    """
    by_id = {job.job_id: job for job in jobs}
    pauses = pauses_between_looks(context.settings.reconcile_seconds)
    for left in range(LOOKS - 1, -1, -1):
        if not by_id:
            return set()
        listed = read(context.client)
        found = [report for report in listed.reports.values() if report.job_id in by_id]
        context.ledger.record(*found, anew=True)
        for report in found:
            del by_id[report.job_id]
        _check_listed(context, list(by_id.values()), listed)
        if not by_id or not left or not context.settings.reconcile_seconds:
            break
        context.retry.pause(next(pauses))
    return {job.key for job in by_id.values()}


def _check_listed(context: Context, unlisted: Sequence[Job], listed: Listing) -> None:
    """Raise ApiError if some jobs that a list has not may be there all the same."""
    window = context.settings.reconcile_seconds
    for job in unlisted:
        unknown = f"The workspace at {context.settings.server_url} does not know job {job.job_id}, but"
        if listed.may_be_cut and len(listed.reports) != listed.total:
            raise ApiError(f"{unknown} its list of jobs is not whole ({len(listed.reports):,} jobs).")
        if _may_be_hidden(context, job) and _is_of_this_workspace(context, job, listed):
            raise ApiError(
                f"{unknown} that was created, or seen running, less than {window:g} seconds ago (reconcile_seconds), "
                "and may not be shown yet."
            )


def _may_be_hidden(context: Context, job: Job) -> bool:
    """Tell whether a job was created, or last seen running, so short a time ago that it cannot be gone for good."""
    report = job.report
    if is_recent(context, None if report is None else report.created_at):
        return True
    since_seen = abs(context.ledger.now() - (job.checked_at or 0))
    return not job.ended and since_seen < context.settings.reconcile_seconds * SECOND


def _is_of_this_workspace(context: Context, job: Job, listed: Listing) -> bool:
    """Tell whether this key sees the jobs of the key that a job was sent with, as far as the list tells."""
    ledger, account = context.ledger, context.client.account
    submission = ledger.submission(job.submission_id) if job.submission_id is not None else None
    if submission is None or submission.account == account:
        return True
    others = [one for one in ledger.submissions() if one.account == submission.account]
    return any(job.job_id in listed.reports for one in others for job in ledger.jobs(one.submission_id))


def check_files_gone(context: Context, job: Job, file_ids: Sequence[str]) -> None:
    """Raise IncompleteResultsError unless the workspace certainly has no longer any of these files of a job.

    The caller has tried to download them several times. A file counts as there for reconcile_seconds from its job's
    end, or from its beginning if that is not known.
    """
    for file_id in file_ids:
        try:
            is_there = context.client.has_file(file_id)
        except AuthenticationError:
            raise
        except ApiError as error:
            raise IncompleteResultsError(_unsure(job, file_id, f"could not be looked for. {error}")) from None
        if is_there:
            raise IncompleteResultsError(_unsure(job, file_id, "is there, but was not delivered (HTTP 404)."))
    report = job.report
    if report is not None and is_recent(context, report.completed_at or report.created_at):
        why = "is not there, but the job is so young that the file may still come."
        raise IncompleteResultsError(_unsure(job, file_ids[0], why))


def is_recent(context: Context, moment: int | None) -> bool:
    """Tell whether a time of the API's, in µs, is less than reconcile_seconds ago by the API's own clock."""
    if moment is None:
        return False
    clock = context.client.server_time or context.ledger.now()
    return abs(clock - moment) < context.settings.reconcile_seconds * SECOND


def _unsure(job: Job, file_id: str, why: str) -> str:
    return (
        f"File {file_id} of job {job.job_id} {why} Whether the workspace has lost it is not known yet: run the "
        "statement again a little later."
    )
