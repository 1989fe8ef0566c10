"""Learning of what only the workspace knows, by an id: a submission of another home, and what that has retried.

A submission is learnt whole or not at all: parts that are created later would not be looked for any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from duckdb_mistral.api.listing import read
from duckdb_mistral.batches.adopt import Found, retries_of
from duckdb_mistral.batches.restore import restore
from duckdb_mistral.batches.submissions import by_submission
from duckdb_mistral.errors import OutcomeUnknownError
from duckdb_mistral.state.names import REPAIR_LOCK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duckdb_mistral.api.listing import Listing
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job
    from duckdb_mistral.jobs.plan import Plan


def learn_submission(context: Context, submission_id: str) -> Found | None:
    """Take a submission that the ledger does not know into it, if the workspace has all of its jobs.

    One is left alone some of whose rows are known by files of its own home alone: they would be missing without a word.
    Returns what the workspace has of it, taken or not; None if it has nothing.
    """
    by_id = dict(by_submission(read(context.client).reports.values()))
    if submission_id not in by_id:
        return None
    found = Found(submission_id=submission_id, jobs=tuple(by_id[submission_id]))
    if found.is_whole and not found.lacks_files(context.home):
        retries = retries_of({submission_id, *(report.job_id for report in found.jobs)}, by_id)
        _restore(context, [found, *(one for one in retries if one.is_whole)])
    return found


def learn_retries(context: Context, jobs: Sequence[Job], listed: Listing, plan: Plan) -> bool:
    """Take into the ledger what the workspace lists of retries that it does not know; tell whether there are any.

    `jobs` are those of the submission that they retry, and of the retries that are known; `plan` is that of the
    submission. Raises OutcomeUnknownError if another home has created only some of a retry's jobs so far.
    """
    ids = {one for job in jobs for one in (job.submission_id, job.job_id) if one is not None}
    found = retries_of(ids, dict(by_submission(listed.reports.values())))
    new = [one for one in found if context.ledger.submission(one.submission_id) is None]
    for one in new:
        if not one.is_whole and one.may_do:
            raise OutcomeUnknownError(
                f"The same requests are being retried as {one.submission_id} from another home, and so far "
                f"{one.places} of its {one.expected} jobs have been created. Nothing was sent. Run the statement again "
                "once that home has created the rest; if it never will, cancel first those that it has created."
            )
    _restore(context, new, plan)
    return bool(new)


def _restore(context: Context, found: Sequence[Found], plan: Plan | None = None) -> None:
    if found:
        with context.locks.waiting(REPAIR_LOCK):
            restore(context, [report for one in found for report in one.jobs], plan)
