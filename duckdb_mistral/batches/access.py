"""Whose a submission is: a new key of the same workspace goes on with it, a key of another one does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duckdb_mistral.errors import ArgumentError, AuthenticationError, NotFoundError
from duckdb_mistral.jobs.job import LOST

if TYPE_CHECKING:
    from duckdb_mistral.api.client import BatchClient
    from duckdb_mistral.jobs.job import Submission
    from duckdb_mistral.state.ledger import Ledger


def check_account(ledger: Ledger, client: BatchClient, submission: Submission, *, take_over: bool) -> None:
    """Make sure that this key sees the workspace of a submission that another key made.

    Where nothing tells which workspace that is, because the other key has made nothing at the API, `take_over` lets
    this key have the submission: for who asks for it to be sent, not for who only looks. Raises ArgumentError.
    """
    if submission.account == client.account:
        return
    same = _same_workspace(ledger, client, submission)
    lost = any(job.step in LOST for job in ledger.jobs(submission.submission_id))
    if same or (same is None and take_over and not lost):
        ledger.set_account(submission.submission_id, client.account)
        return
    keys = f"another API key (account {submission.account}; this key is account {client.account})"
    if same is None and not lost:
        raise ArgumentError(
            f"Submission {submission.submission_id} was made with {keys}, and nothing of it was sent yet that would "
            "tell whether both are of one workspace. Use that key, or run the submit statement again to have it sent "
            "with this one."
        )
    raise ArgumentError(
        f"The same requests were submitted as {submission.submission_id} with {keys}, whose jobs this key cannot see. "
        "Nothing was sent. Use that key, or submit with force := true to pay for them in this workspace too."
    )


def _same_workspace(ledger: Ledger, client: BatchClient, submission: Submission) -> bool | None:
    """Tell whether the client sees what the submission's key has made; None where the ledger knows of nothing."""
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
