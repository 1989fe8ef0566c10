"""Finding the jobs at the API that a ledger does not know of: their answers were lost, or it is older than they are.

A job is found by its metadata, or by its input file and its model, whatever a server made of its metadata. How long a
lost answer is looked for is measured by the API's clock and by the ledger's, and the one that says less counts. The
ledger's is this machine's, or the PostgreSQL server's: those of several machines differ.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from duckdb_mistral.api.listing import Sought, read, widened
from duckdb_mistral.errors import LedgerError, OutcomeUnknownError
from duckdb_mistral.jobs.job import LOST, Job, Step, Submission
from duckdb_mistral.jobs.report import JobReport, Status
from duckdb_mistral.jobs.tags import Tags, place

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from duckdb_mistral.api.listing import Listing
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.errors import MistralBatchError

#: The file of each part of a submission.
Files = dict[int, str]
#: In the ledger's microseconds.
SECOND = 1_000_000
#: A server's clock has whole seconds.
CLOCK_SECONDS = 1.0
#: Narrower lists are asked for from this long before a job was sent.
CLOCK_MARGIN = 600 * SECOND
#: A job that is on its way out does not stand for its part where another one does.
CANCELLING = (Status.CANCELLED, Status.CANCELLATION_REQUESTED)


class Finder:
    """Looks for the jobs of one ledger in one workspace."""

    def __init__(self, context: Context) -> None:
        """Look through the workspace of `context`; raises MissingKeyError where there is no key."""
        self._settings = context.settings
        self._ledger = context.ledger
        self._client = context.client

    def look_for_lost(self, submission: Submission) -> None:
        """Look for the jobs of creates whose answers were lost; the caller holds the submission's lock.

        Those that are found are adopted; others may be sent again in time, or are dropped where they were given up.
        """
        lost = self._at(submission, *LOST)
        if not lost:
            return
        listed = read(self._client)
        files = self.files(submission)
        problem: MistralBatchError | None = None
        for job in lost:
            try:
                self.reconcile(submission, job, listed, files)
            except (LedgerError, OutcomeUnknownError) as error:
                problem = problem or error
        if problem is not None:
            raise problem

    def reconcile(self, submission: Submission, job: Job, listed: Listing, files: Files) -> None:
        """Adopt the job of a create whose answer was lost, or let it be sent again once it was looked for long enough.

        One that was given up is dropped instead. Raises OutcomeUnknownError until then.
        """
        found, is_whole = self.found(submission, job, listed, files)
        if found is not None:
            self._ledger.created(job, found)
            return
        unknown = (
            f"It is not known yet whether the API took part {job.part} of submission "
            f"{submission.submission_id}: the answer was lost, and the job is not listed so far. Nothing is sent twice"
        )
        window = self._window(job)
        left = window - self._waited(job) if window else 0.0
        if left > 0:
            raise OutcomeUnknownError(
                f"{unknown}: run the statement again in {left:.0f} seconds or later; it looks for the job first."
            )
        if not is_whole:
            raise OutcomeUnknownError(
                f"{unknown}, but {listed.told_short}. Run the statement again later, or with force := true to send it "
                "again."
            )
        message = "The answer to its create was lost, and the API has no such job."
        self._ledger.move(job, Step.DROPPED if job.step is Step.GIVEN_UP else Step.PLANNED, message=message)

    def _window(self, job: Job) -> float:
        """Return for how many seconds the job of a lost answer is looked for; none at all where nobody wants that."""
        asked_for = self._settings.reconcile_seconds
        return max(asked_for, (job.least_wait or 0) / SECOND) if asked_for else 0.0

    def _waited(self, job: Job) -> float:
        """Return how many seconds ago a create was sent, refused, or lost, by the clock that says the least."""
        waited = min(self._told_waits(job))
        if waited < -CLOCK_SECONDS:  # a clock was set back, or is another machine's: the time starts again
            self._ledger.move(job, job.step, message=job.message, **self.times(job.least_wait))
            return 0.0
        return max(0.0, waited)

    def _told_waits(self, job: Job) -> list[float]:
        """Return how many seconds ago a create was sent, or its answer came or was lost, by each clock."""
        times = self.times(job.least_wait)
        told = [times["sent_at"] - (job.sent_at or 0)]
        if job.sent_here_at is not None:
            told.append(times["sent_here_at"] - job.sent_here_at)
        return [microseconds / SECOND for microseconds in told]

    def adopt_listed(self, submission: Submission, jobs: Sequence[Job], listed: Listing) -> bool:
        """Take over jobs that were to be sent, where the workspace has them: after a refusal, or behind the ledger.

        Returns whether the list was whole, as far as it was needed.
        """
        files = self.files(submission)
        narrower = cache(lambda: self._widened(listed, jobs))
        all_whole = True
        for job in jobs:
            found, is_whole = self.found(submission, job, listed, files, narrower)
            all_whole = all_whole and (found is not None or is_whole)
            if found is not None and self._ledger.move(job, Step.SENDING):
                self._ledger.created(job.evolve(step=Step.SENDING), found)
        return all_whole

    def unsent(self, keys: Sequence[int]) -> list[Job]:
        """Return those of some jobs that are still to be sent, by their keys in the ledger."""
        return [job for job in self._ledger.jobs_by_key(keys) if job.step in (Step.PLANNED, Step.HELD)]

    def left(self, job: Job) -> float:
        """Return for how many seconds more the job of a refused create is looked for before it may be sent again.

        One whose answer was lost was looked for before it came to be unsent.
        """
        window = min((job.least_wait or 0) / SECOND, self._settings.reconcile_seconds)
        return max(0.0, window - self._waited(job)) if window else 0.0

    def files(self, submission: Submission) -> Files:
        """Return the file of each part that was uploaded."""
        return {part.part: part.file_id for part in self._ledger.parts(submission.submission_id) if part.file_id}

    def found(
        self,
        submission: Submission,
        job: Job,
        listed: Listing,
        files: Files,
        narrower: Callable[[], Listing] | None = None,
    ) -> tuple[JobReport | None, bool]:
        """Return the job of a create, as the API lists it, and whether the list was whole where it does not.

        `narrower` reads what narrower lists show beside `listed`, where those of this job alone are not enough.
        """
        file_id = files.get(job.part)
        wanted = sought(submission, job, files)
        candidates = [file_id] if file_id else []
        found = self._ours(job, wanted.among(listed.told_of(submission.submission_id, candidates)))
        # That a list ends at a round number is no reason to read more for each part that was never sent.
        if not found and (listed.may_be_cut if job.was_sent else not listed.is_whole):
            listed = self._widened(listed, [job]) if narrower is None else narrower()
            found = self._ours(job, wanted.among(listed.told_of(submission.submission_id, candidates)))
        if len(found) > 1:
            ids = " and ".join(report.job_id for report in found)
            advice = "cancel all but one with mistral_batch_cancel, and run the statement again"
            if all(report.ended for report in found):
                advice = (
                    f"they have ended, and mistral_batch_results('{found[0].job_id}') reads what one of them answered"
                )
            raise LedgerError(
                f"Part {job.part} of submission {submission.submission_id} has more than one job: {ids}. None is "
                f"chosen silently: {advice}."
            )
        return (found[0] if found else None), listed.is_whole

    def _widened(self, listed: Listing, jobs: Sequence[Job]) -> Listing:
        """Return a list that may be cut with what narrower ones show; jobs that were never sent may be of any time."""
        since = min((job.sent_at or job.sent_here_at or 0 for job in jobs), default=0)
        models = dict.fromkeys(job.model for job in jobs)
        return widened(self._client, listed, since=max(0, since - CLOCK_MARGIN), models=models)

    def _ours(self, job: Job, reports: Sequence[JobReport]) -> list[JobReport]:
        """Return the jobs that may stand for a part, without those that the ledger has for another one."""
        found = []
        for report in reports:
            known = self._ledger.job(report.job_id)
            if known is None or known.submission_id is None or known.key == job.key:
                found.append(report)
        if len(found) > 1:
            found = [report for report in found if report.status not in CANCELLING] or found
        return found

    def times(self, least_wait: int | None) -> dict[str, Any]:
        """Return the time in µs by the API's clock, if it has told it, and by the ledger's, as a move takes them."""
        here = self._ledger.now()
        return {"sent_at": self._client.server_time or here, "sent_here_at": here, "least_wait": least_wait}

    def _at(self, submission: Submission, *steps: Step) -> list[Job]:
        return [job for job in self._ledger.jobs(submission.submission_id) if job.step in steps]


def tags(submission: Submission, job: Job) -> Tags:
    """Return what a job tells by which it is found again."""
    return Tags(submission_id=submission.submission_id, place=place(job.part, job.model), identity=submission.identity)


def sought(submission: Submission, job: Job, files: Files) -> Sought:
    """Return what tells the job of a part among those of the workspace; `files` has the file of each part."""
    file_id, models = files.get(job.part), len(submission.models)
    return Sought(tags=tags(submission, job), model=job.model, file_id=file_id, models=models)
