"""Which jobs an id names: those of a submission, or another program's job, each with its retries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duckdb_mistral.api.ids import checked_id
from duckdb_mistral.errors import NotFoundError, UnknownJobError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job


def find(context: Context, identifier: str) -> list[Job]:
    """Return the jobs of a submission, or of another program's job, and of its retries; else one job alone.

    They are as the ledger has them, or as the API has one that is new here. Raises UnknownJobError.
    """
    identifier = checked_id(identifier)
    ledger = context.ledger
    if ledger.submission(identifier) is not None:
        jobs = ledger.jobs(identifier)
    else:
        jobs = [ledger.job(identifier) or _adopted(context, identifier)]
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


def _adopted(context: Context, job_id: str) -> Job:
    """Take a job that another program created into the ledger."""
    ledger = context.ledger
    try:
        return ledger.adopt(context.client.get(job_id), context.settings.server_url)
    except NotFoundError:
        raise UnknownJobError(
            f"There is no submission or job {job_id}: neither the ledger {ledger.place} nor the "
            f"workspace at {context.settings.server_url} knows it. mistral_batch_status() lists your submissions, "
            "mistral_batch_jobs() the workspace's jobs."
        ) from None
