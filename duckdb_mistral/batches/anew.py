"""What failed as a whole is sent anew only if the workspace has nothing in its place.

Another home may know the same submission, from a backup or because it took it over: it may have sent it anew, or
retried it. And another program may run a job on one of its files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from duckdb_mistral.api.listing import widened
from duckdb_mistral.batches.access import check_account
from duckdb_mistral.batches.adopt import restored, whole_elsewhere
from duckdb_mistral.batches.find import Finder, sought
from duckdb_mistral.batches.late import ask_anew
from duckdb_mistral.batches.learn import learn_retries
from duckdb_mistral.batches.lookup import find
from duckdb_mistral.batches.refresh import refresh
from duckdb_mistral.batches.send import Sender
from duckdb_mistral.errors import LedgerError
from duckdb_mistral.jobs.job import Step
from duckdb_mistral.jobs.report import ENDED_BADLY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duckdb_mistral.api.listing import Listing
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job, Submission
    from duckdb_mistral.jobs.plan import Plan
    from duckdb_mistral.jobs.report import JobReport


def failed_as_a_whole(context: Context, known: Submission) -> bool:
    """Tell whether all jobs of a submission ended badly, those of its retries included, or there are none.

    Raises ApiError where the API cannot be asked for them once more.
    """
    with context.locks.waiting(known.submission_id):
        check_account(context, known, take_over=True)
        Sender(context).look_for_lost(known)
        refresh(context, find(context, known.submission_id))
        found = find(context, known.submission_id)
        jobs = [job for job in found if job.step is not Step.ANSWERED]
        if not jobs or not _ended_badly(jobs):
            return not found
        ask_anew(context, jobs)
        return _ended_badly(context.ledger.jobs_by_key([job.key for job in jobs]))


def found_instead(context: Context, plan: Plan, known: Submission, listed: Listing) -> Submission | None:
    """Return what stands for the content of a submission that failed as a whole; None where it is to be sent anew.

    That is another submission that the workspace has, which is taken over, or `known` itself where a retry was made
    elsewhere. `listed` is what the workspace lists. Raises OutcomeUnknownError as `whole_elsewhere` does, and
    LedgerError where a job that the ledger does not know has not failed.
    """
    if listed.may_be_cut:
        listed = widened(context.client, listed, since=0, models=plan.models)
    # A list may know better than what was asked for one by one: a job that counted as gone may be there after all.
    told = [listed.reports.get(job.job_id or "") for job in find(context, known.submission_id)]
    context.ledger.record(*filter(None, told), anew=True)
    family = find(context, known.submission_id)
    if not _ended_badly(family):
        return known
    whole = whole_elsewhere(context, known.identity, listed, plan.models)
    if whole:
        with context.locks.waiting(known.submission_id):
            context.ledger.retire(known.submission_id)  # even if it is the later one
        return restored(context, plan, known.identity, whole)
    if learn_retries(context, family, listed, plan) and not failed_as_a_whole(context, known):
        return known
    _check_unknown(context, family, listed)
    return None


def _ended_badly(jobs: Sequence[Job]) -> bool:
    """Tell whether all jobs ended badly; the rows that were found answered are no job of the API's."""
    return all(job.ended_badly for job in jobs if job.step is not Step.ANSWERED)


def _check_unknown(context: Context, family: Sequence[Job], listed: Listing) -> None:
    """Raise LedgerError where the workspace has a job of the same requests that is not known here and has not failed.

    Its answers cannot be read as those of the submission, whose own job failed.
    """
    known = {job.job_id for job in family}
    finder = Finder(context)
    for submission_id in dict.fromkeys(job.submission_id for job in family):
        submission = context.ledger.submission(submission_id or "")
        if submission is None:
            continue
        files = finder.files(submission)
        told = listed.told_of(submission.submission_id, files.values())
        others = [report for report in told if report.job_id not in known and report.word not in ENDED_BADLY]
        for job in (job for job in family if others and job.submission_id == submission_id):
            for report in sought(submission, job, files).among(others):
                theirs = context.ledger.job(report.job_id)
                if theirs is None or theirs.submission_id is None:
                    raise LedgerError(_unknown(job, report))


def _unknown(job: Job, report: JobReport) -> str:
    return (
        f"Part {job.part} of submission {job.submission_id} failed, but job {report.job_id} ({report.word}), which "
        "this ledger does not know, has the same requests. Nothing was sent, because they would be paid for twice. "
        f"FROM mistral_batch_results('{report.job_id}') reads its answers once it has ended. To send them again, "
        "cancel that job and run the statement again, or submit with force := true."
    )
