"""Check that this API key may act on a submission: one of the same workspace may, one of another workspace may not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duckdb_mistral.errors import ArgumentError, AuthenticationError, NotFoundError
from duckdb_mistral.jobs.job import LOST

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job, Submission


def check_server(context: Context, jobs: Iterable[Job]) -> None:
    """Make sure that jobs are at the server that these settings name; raises ArgumentError."""
    for job in jobs:
        if job.server_url != context.settings.server_url:
            raise ArgumentError(
                f"Job {job.job_id or '(not created yet)'} belongs to {job.server_url}, but this connection talks "
                f"to {context.settings.server_url}. Set MISTRAL_SERVER_URL (or server_url) to that address."
            )


def check_workspace(context: Context, jobs: Sequence[Job]) -> None:
    """Make sure that this connection sees the jobs: what another server or key does not know counts as gone.

    Raises ArgumentError.
    """
    created = [job for job in jobs if job.job_id is not None]
    check_server(context, created)
    for submission_id in dict.fromkeys(job.submission_id for job in created):
        submission = context.ledger.submission(submission_id) if submission_id else None
        try:
            if submission is not None:
                check_account(context, submission)
        except ArgumentError:
            raise ArgumentError(
                f"Submission {submission_id} was made with another API key, whose jobs this key (account "
                f"{context.client.account}) cannot see. Nothing was read or sent. Use the key it was made "
                "with, or another key of that workspace."
            ) from None


def check_account(context: Context, submission: Submission, *, take_over: bool = False) -> None:
    """Make sure that this key sees the workspace of a submission that another key made.

    If the other key has made nothing at the API, its workspace is not known; `take_over` then lets this key have the
    submission: for callers that send it, not for those that only look. Raises ArgumentError.
    """
    ledger, client = context.ledger, context.client
    if submission.account == client.account:
        return
    same = _same_workspace(context, submission)
    lost = any(job.step in LOST for job in ledger.jobs(submission.submission_id))
    if same or (same is None and take_over and not lost):
        ledger.set_account(submission.submission_id, client.account)
        return
    keys = f"another API key (account {submission.account}; this key is account {client.account})"
    if same is None and not lost:
        raise ArgumentError(
            f"Submission {submission.submission_id} was made with {keys}. Nothing of it has been sent yet, so "
            "whether both keys belong to one workspace is not known. Use that key, or run the submit statement again "
            "to send it with this one."
        )
    raise ArgumentError(
        f"The same requests were submitted as {submission.submission_id} with {keys}, whose jobs this key cannot see. "
        "Nothing was sent. Use that key, or submit with force := true to pay for them in this workspace too."
    )


def _same_workspace(context: Context, submission: Submission) -> bool | None:
    """Tell whether the client sees what the submission's key has made; None if the ledger knows of nothing."""
    ledger, client = context.ledger, context.client
    mine = (submission.account, submission.server_url)
    others = [
        one for one in reversed(ledger.submissions()) if (one.account, one.server_url) == mine and one != submission
    ]
    files = [part.file_id for part in ledger.parts(submission.submission_id) if part.file_id]
    try:
        for one in (submission, *others):
            for job in ledger.jobs(one.submission_id):
                if job.job_id is not None:
                    client.get(job.job_id)
                    return True
            if one == submission and files:
                return client.file_exists(files[0])
    except (NotFoundError, AuthenticationError):
        return False
    return None
