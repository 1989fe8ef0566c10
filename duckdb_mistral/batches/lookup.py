"""Which jobs an id names: those of a submission, or another program's job, each with its retries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duckdb_mistral.api.ids import checked_id
from duckdb_mistral.batches.learn import learn_submission
from duckdb_mistral.errors import NotFoundError, OutcomeUnknownError, UnknownJobError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job


def find(context: Context, identifier: str) -> list[Job]:
    """Return the jobs of a submission, or of another program's job, and of its retries; else one job alone.

    They are as the ledger has them, or as the API has what is new here. Raises UnknownJobError, and OutcomeUnknownError
    for a submission that another home has sent in part so far.
    """
    identifier = checked_id(identifier)
    ledger = context.ledger
    if ledger.submission(identifier) is None and ledger.job(identifier) is None:
        _learn(context, identifier)
    if ledger.submission(identifier) is not None:
        jobs = ledger.jobs(identifier)
    else:
        jobs = list(filter(None, [ledger.job(identifier)]))
    retries = ledger.retries([identifier, *(job.job_id for job in jobs if job.job_id)])
    return jobs + [job for retry in retries for job in ledger.jobs(retry.submission_id)]


def reread(context: Context, jobs: Iterable[Job]) -> list[Job]:
    """Return jobs as the ledger has them now."""
    return context.ledger.jobs_by_key([job.key for job in jobs])


def declared_output(context: Context, identifier: str) -> str | None:
    """Return the declared output of an id of the ledger's; None if it has none, or is not known here."""
    job = context.ledger.job(identifier)
    submission = context.ledger.submission(identifier if job is None else job.submission_id or identifier)
    return None if submission is None else submission.output


def _learn(context: Context, identifier: str) -> None:
    """Take what the workspace knows by an id into the ledger: a submission of another home, or another program's job.

    A job of a submission brings all of it along, once that home has created all of its jobs.
    """
    ledger = context.ledger
    try:
        report = context.client.get(identifier)
    except NotFoundError:
        report = None
    submission_id = identifier if report is None else report.tags.submission_id
    found = None
    if submission_id is not None and ledger.submission(submission_id) is None:
        found = learn_submission(context, submission_id)
    if report is not None:
        if ledger.job(report.job_id) is None:
            ledger.adopt(report, context.settings.server_url)
    elif found is None:
        raise UnknownJobError(
            f"There is no submission or job {identifier}: neither the ledger {ledger.place} nor the "
            f"workspace at {context.settings.server_url} knows it. mistral_batch_status() lists your submissions, "
            "mistral_batch_jobs() the workspace's jobs."
        )
    elif not found.is_whole:
        raise OutcomeUnknownError(
            f"Submission {identifier} is another home's, and so far {found.places} of its {found.expected} jobs have "
            "been created. Run the statement again once that home has created the rest, or name one of its jobs."
        )
    elif ledger.submission(identifier) is None:
        raise UnknownJobError(
            f"Submission {identifier} is another home's, made with reuse := 'requests', and which of its rows share a "
            "request or were answered before is known there alone. Read it there, or name one of its jobs to read what "
            "that job was sent."
        )
