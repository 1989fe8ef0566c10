"""Creating one job: written down before, sent at most once, and what came of it recorded or looked for.

One process at a time advances a submission, under its lock, so a job found SENDING has lost its answer. A create is one
POST, which leaves soon after SENDING was written or not at all. Where it cannot be known whether the API took it, the
job is looked for by its metadata and its input file before anything is sent again.

What a create is answered is recorded when the next one begins, in one transaction: a ledger on PostgreSQL may be far
away, and one under `home` is written to the disk each time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from duckdb_mistral.api.listing import read
from duckdb_mistral.batches.again import Again, refused_seconds
from duckdb_mistral.batches.find import CLOCK_SECONDS, SECOND, Finder, tags
from duckdb_mistral.errors import (
    ApiError,
    AuthenticationError,
    LedgerError,
    LimitError,
    NotFoundError,
    OutcomeUnknownError,
    OversleptError,
    UnreachableError,
)
from duckdb_mistral.jobs.job import Job, Step, Submission
from duckdb_mistral.runtime import interrupts
from duckdb_mistral.runtime.clocks import awake
from duckdb_mistral.runtime.endings import ending
from duckdb_mistral.runtime.failpoints import failpoint
from duckdb_mistral.state.ledger import OtherJobError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.report import JobReport
    from duckdb_mistral.jobs.tags import Tags

#: A create leaves at most so long after SENDING was written, and sooner where others would look for it for less long.
MOST_SENDING_SECONDS = 20.0
#: Somebody on the way gave the server up, which may go on all the same.
TIMED_OUT = (408, 504)
#: A process that is stopped again and again between SENDING and its create gives it up.
SENDING_TRIES = 3


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A create that was answered, which is to be recorded."""

    submission: Submission
    sending: Job
    #: Where the job stood before.
    before: Step
    report: JobReport


class Creator:
    """Creates jobs of one ledger in one workspace."""

    def __init__(self, context: Context, finder: Finder, again: Again) -> None:
        """Work in `context`; `finder` and `again` look for jobs there."""
        self._settings = context.settings
        self._ledger = context.ledger
        self._client = context.client
        self._locks = context.locks
        self._finder = finder
        self._again = again
        self._answered: Answered | None = None

    def recording(self) -> AbstractContextManager[None]:
        """See to it that all creates of a block are recorded when it ends."""
        return ending(self._settle)

    def create(self, submission: Submission, job: Job, file_id: str, jobs: int) -> bool:
        """Send the create of one of so many jobs; False where the API's limit holds it.

        The answer is recorded when the next one begins, or the block `recording` ends.
        """
        interrupts.check()
        sending = job
        for left in range(SENDING_TRIES - 1, -1, -1):
            began = awake()
            moved = self._begin(sending)
            if moved is None:
                return True  # moved by a cancel, or by who took this process for dead
            sending = moved
            failpoint("before-create")
            try:
                report = self._client.create(
                    file_id=file_id,
                    endpoint=submission.endpoint,
                    model=job.model,
                    metadata=dict(submission.metadata) | _told(submission, job, jobs).to_metadata(),
                    timeout_hours=submission.timeout_hours,
                    not_after=began + self.sending_seconds,
                )
                failpoint("after-create")
            except OversleptError:
                if not left:
                    self._ledger.move(sending, job.step, refused=True)
                    raise
                # Others may have sent it meanwhile.
                found = self._again.find(submission, sending, {job.part: file_id})
                if found is not None:
                    self._record(sending, found)
                    return True
            except LimitError as error:
                self._ledger.move(sending, Step.HELD, message=str(error), **self._refused_at(error))
                return False
            except ApiError as error:
                self._failed(submission, sending, job.step, error)
                return True
            else:
                self._answered = Answered(submission=submission, sending=sending, before=job.step, report=report)
                return True
        raise AssertionError("the last try returns or raises")

    def _begin(self, job: Job) -> Job | None:
        """Write down that a create is about to leave, again if it did not in time; None if others moved it.

        Raises LedgerError if this process has lost the submission's lock.
        """
        least_wait = int((self.sending_seconds + self._settings.deadline_seconds + CLOCK_SECONDS) * SECOND)
        told: dict[str, Any] = {"sent_at": self._client.server_time, "least_wait": least_wait}
        answered = self._answered
        try:
            after = None if answered is None else (answered.sending, answered.report)
            moved = self._ledger.begin(job, **told, after=after)
        except OtherJobError:
            self._settle()
            moved = self._ledger.begin(job, **told)
        except LedgerError:
            self._settle()  # which says that it was created, if that cannot be recorded
            raise
        if answered is not None:
            self._answered = None
            failpoint("after-record")
        if moved is None:
            self._locks.check(str(job.submission_id))
        return moved

    def _settle(self) -> None:
        """Record the create that was answered last, unless it is."""
        answered, self._answered = self._answered, None
        if answered is None:
            return
        try:
            self._record(answered.sending, answered.report)
        except ApiError as error:
            self._failed(answered.submission, answered.sending, answered.before, error)
        failpoint("after-record")

    @property
    def sending_seconds(self) -> float:
        """How long after SENDING was written a create may leave, so that it is answered while others still look."""
        deadline, window = self._settings.deadline_seconds, self._settings.reconcile_seconds
        spare = window - deadline if window > deadline else deadline / 2
        return min(MOST_SENDING_SECONDS, spare * 2 / 3)

    def _failed(self, submission: Submission, sending: Job, before: Step, error: ApiError) -> None:
        """Record what became of a create without an answer that names its job; raise what is to be told of it."""
        if not _refused(error):
            self._answer_lost(submission, sending, error)
            return
        # A request refused for its own content would be refused again: a wait must not keep asking.
        for_what_it_is = error.status_code is not None and not isinstance(error, AuthenticationError)
        step = Step.PLANNED if for_what_it_is else before
        self._ledger.move(sending, step, message=str(error), **self._refused_at(error))
        raise error

    def _refused_at(self, error: ApiError) -> dict[str, Any]:
        """Return what is written down of a create that was refused; nothing of one that never left."""
        if isinstance(error, UnreachableError):
            return {"refused": True}
        seconds = refused_seconds(error, self._settings.reconcile_seconds)
        return {"refused": True} | self._finder.times(int(seconds * SECOND))

    def _record(self, sending: Job, report: JobReport) -> None:
        """Record the job of a create; raise ApiError if the answer names another's: its own is looked for."""
        try:
            self._ledger.created(sending, report)
        except OtherJobError:
            raise ApiError(
                f"The answer to the create names job {report.job_id}, which belongs to another part."
            ) from None
        except LedgerError as error:
            raise LedgerError(
                f"Job {report.job_id} was created, but that could not be recorded. {error} The next statement "
                "looks for the job at the API and continues with it."
            ) from error

    def _answer_lost(self, submission: Submission, job: Job, error: ApiError) -> None:
        """Look at once for the job of a create that may have been taken; raise where it is not found."""
        # A server that kept silent for the whole deadline may be as late again with storing it.
        silent = error.status_code in TIMED_OUT or (isinstance(error, UnreachableError) and error.timed_out)
        times = self._finder.times(int((self._settings.deadline_seconds + CLOCK_SECONDS) * SECOND) if silent else None)
        self._ledger.move(job, Step.SENDING, **times)
        job = job.evolve(**times)
        try:
            self._finder.reconcile(submission, job, read(self._client), self._finder.files(submission))
        except OutcomeUnknownError as unknown:
            raise OutcomeUnknownError(f"{error} {unknown}") from None
        except ApiError:
            self._unknown(submission, job, error)
        if job.key not in {one.key for one in self._ledger.jobs(submission.submission_id) if one.step is Step.CREATED}:
            self._unknown(submission, job, error)

    def _unknown(self, submission: Submission, job: Job, error: ApiError) -> NoReturn:
        raise OutcomeUnknownError(
            f"{error} Whether the API took part {job.part} of submission {submission.submission_id} is not known. "
            "Nothing is sent twice: run the statement again; it looks for the job first."
        ) from None


def _told(submission: Submission, job: Job, jobs: int) -> Tags:
    """Return what one of so many jobs tells: by what it is found again, and what only a repair reads."""
    return replace(tags(submission, job), jobs=jobs, retry_of=submission.retry_of, models=submission.models)


def _refused(error: ApiError) -> bool:
    """Tell whether the API took nothing, as it says: the request never left, or a 3xx or 4xx (not 408) answered it."""
    if isinstance(error, UnreachableError):
        return not error.sent
    if isinstance(error, AuthenticationError | NotFoundError):
        return True
    code = error.status_code
    return code is not None and 300 <= code < 500 and code not in TIMED_OUT
