"""Sentences about jobs: how far they are, which were not sent, and which the workspace does not know."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from duckdb_mistral.errors import NotSentError, UnknownJobError
from duckdb_mistral.jobs import failures
from duckdb_mistral.jobs.job import Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job


def describe(jobs: Sequence[Job]) -> str:
    """Return how far jobs are, in one or two sentences."""
    counts = Counter(job.status for job in jobs)
    done = sum(job.report.completed_requests for job in jobs if job.report)
    done += sum(job.request_count for job in jobs if job.step is Step.ANSWERED)
    total = sum(job.request_count for job in jobs)
    words = ", ".join(f"{count} {status}" for status, count in counts.items())
    if len(jobs) == 1 and jobs[0].step is Step.ANSWERED:
        return f"All {total:,} requests were answered before."
    if len(jobs) == 1:
        return (
            f"Job {jobs[0].job_id or '(not created yet)'} is {jobs[0].status}: {done:,} of {total:,} requests are done"
            f"{failures.told(jobs)}."
        )
    return f"Of {len(jobs)} jobs, {words}: {done:,} of {total:,} requests are done{failures.told(jobs)}."


def not_known(context: Context, job: Job) -> UnknownJobError:
    """Return the error for a job that the workspace does not have."""
    named = job.submission_id or job.job_id
    return UnknownJobError(
        f"The workspace at {context.settings.server_url} does not know job {job.job_id}, or no longer does. The "
        "ledger keeps its row; if the job belongs to another workspace, use that workspace's key. To read what other "
        f"jobs answered, use mistral_batch_results('{named}', partial := true)."
    )


def not_sent(context: Context, unsent: Sequence[Job]) -> NotSentError:
    """Return the error for unsent jobs: which, why if that is known, and what to do."""
    first = unsent[0]
    others = {1: "", 2: " and 1 other"}.get(len(unsent), f" and {len(unsent) - 1} others")
    them = "them" if others else "it"
    submission = context.ledger.submission(str(first.submission_id))
    statement = "mistral_batch_retry" if submission is not None and submission.retry_of else "the submit statement"
    return NotSentError(
        f"Part {first.part} of submission {first.submission_id}{others} "
        f"{'were' if others else 'was'} not sent. "
        f"{f'{first.message} ' if first.message else ''}Run {statement} again to send {them}, or give {them} "
        f"up with mistral_batch_cancel('{first.submission_id}')."
    )


def replaced(submission_id: str | None, successor: str) -> NotSentError:
    """Return the error for a submission that has given way to another home's, which is in the ledger now."""
    return NotSentError(
        f"Submission {submission_id} is no longer needed, and nothing of it was sent: another home has created jobs of "
        f"the same requests meanwhile, as submission {successor}. FROM mistral_batch_wait('{successor}') waits for "
        "these, and the submit statement returns them."
    )
