"""Giving way to another home that was quicker with the same content: what is recorded here, and not sent, is forgotten.

Of such a submission the API has no job, so nothing is lost: the other home's jobs are of the same requests.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from duckdb_mistral.api.listing import read
from duckdb_mistral.batches.adopt import restored, whole_elsewhere
from duckdb_mistral.batches.reuse_files import forget
from duckdb_mistral.batches.spools import mark_recorded, unmark
from duckdb_mistral.jobs.plan import Plan
from duckdb_mistral.jobs.tags import given_metadata

if TYPE_CHECKING:
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Submission


def forget_untaken(context: Context, submission: Submission) -> bool:
    """Forget a submission that others take the place of, and its requests; False where the API may have a job of it.

    The caller holds the submission's lock.
    """
    directory = context.home.spool(submission.submission_id)
    unmark(directory)  # first: a directory with a mark that the ledger does not know tells of a lost ledger
    if not context.ledger.forget(submission.submission_id):
        mark_recorded(context.home, submission)
        return False
    shutil.rmtree(directory, ignore_errors=True)
    forget(context.home, submission.submission_id)
    return True


def give_way(context: Context, submission: Submission) -> Submission | None:
    """Take the jobs over that another home has created in place of a submission's; None where there are none any more.

    The caller holds the submission's lock. Raises OutcomeUnknownError while the other home has not created all of
    them; the submission stays until then.
    """
    whole = whole_elsewhere(context, submission.identity, read(context.client), submission.models, patient=False)
    if not whole or not forget_untaken(context, submission):
        return None
    return restored(context, plan_of(submission), submission.identity, whole)


def plan_of(submission: Submission) -> Plan:
    """Return the plan that a submission was made from, as far as it tells."""
    return Plan(
        endpoint=submission.endpoint,
        models=submission.models,
        timeout_hours=submission.timeout_hours,
        metadata=given_metadata(submission.metadata),
        output=submission.output,
        retry_of=submission.retry_of,
    )
