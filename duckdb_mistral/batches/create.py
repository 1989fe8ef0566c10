"""Creating one job: written down before, sent at most once, and what came of it recorded or looked for.

One process at a time advances a submission, under its lock, so a job found SENDING has lost its answer. A create is one
POST, which leaves soon after SENDING was written or not at all. Where it cannot be known whether the API took it, the
job is looked for by its metadata and its input file before anything is sent again.

What a create is answered is recorded when the next one begins, in one transaction: one under `home` is written to the
disk each time, and one on PostgreSQL may be far away. There a few begin together, and each leaves soon, or not at all.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn

from duckdb_mistral.api.listing import read
from duckdb_mistral.batches.again import Again, refused_seconds
from duckdb_mistral.batches.find import CLOCK_SECONDS, SECOND, Finder, tags
from duckdb_mistral.errors import (
    ApiError,
    AuthenticationError,
    LedgerError,
    LimitError,
    MistralBatchError,
    NotFoundError,
    OutcomeUnknownError,
    OversleptError,
    UnreachableError,
)
from duckdb_mistral.jobs.job import Job, Step, Submission
from duckdb_mistral.runtime import interrupts
from duckdb_mistral.runtime.clocks import awake
from duckdb_mistral.runtime.failpoints import failpoint
from duckdb_mistral.state.ledger import OtherJobError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.report import JobReport
    from duckdb_mistral.jobs.tags import Tags

#: A create leaves at most so long after SENDING was written, and sooner where others would look for it for less long.
MOST_SENDING_SECONDS = 20.0
#: Somebody on the way gave the server up, which may go on all the same.
TIMED_OUT = (408, 504)
#: A ledger that is far away is told of so many creates at once. Should the process die, they are looked for together.
BEGUN_AT_ONCE = 5
#: A process that is stopped again and again between SENDING and its create gives it up.
SENDING_TRIES = 3


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A create that is written down as being sent."""

    submission: Submission
    #: The job before that, and since.
    planned: Job
    sending: Job
    #: When that was written down, as `awake` counts.
    at: float
    #: What the create was answered, once it was.
    report: JobReport | None = None


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
        #: Creates that have not left, by the keys of their jobs, and those whose answers are not recorded.
        self._begun: dict[int, Begun] = {}
        self._answered: list[Begun] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """See to it that the ledger knows what came of all creates of a block when it ends."""
        try:
            yield
        finally:
            self.settle()

    def create(
        self, submission: Submission, job: Job, file_id: str, jobs: int, *, following: Iterable[Job] = ()
    ) -> bool:
        """Send the create of one of so many jobs; False where the API's limit holds it.

        The answer is recorded when others begin, or by `settle`. Those of `following` may be written down as being
        sent, too, which are to be created next.
        """
        interrupts.check()
        sending = job
        for left in range(SENDING_TRIES - 1, -1, -1):
            begun = self._begun.pop(job.key, None) or self._begin(submission, sending, following)
            if begun is None:
                return True  # moved by a cancel, or by who took this process for dead
            following, sending = (), begun.sending
            failpoint("before-create")
            try:
                report = self._client.create(
                    file_id=file_id,
                    endpoint=submission.endpoint,
                    model=job.model,
                    metadata=dict(submission.metadata) | _told(submission, job, jobs).to_metadata(),
                    timeout_hours=submission.timeout_hours,
                    not_after=begun.at + self.sending_seconds,
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
                self._answered.append(replace(begun, planned=job, report=report))
                return True
        raise AssertionError("the last try returns or raises")

    def settle(self) -> None:
        """Record the creates that were answered, and let those that have not left be as they were."""
        answered, self._answered = self._answered, []
        begun, self._begun = self._begun, {}
        problem: MistralBatchError | None = None
        for one in answered:
            try:
                self._record_answer(one)
            except MistralBatchError as error:
                problem = problem or error
        for one in begun.values():
            with suppress(LedgerError):  # it is looked for, as if its answer was lost
                self._ledger.move(one.sending, one.planned.step, **_sent_before(one.planned), refused=True)
        if problem is not None:
            raise problem

    def _begin(self, submission: Submission, job: Job, following: Iterable[Job]) -> Begun | None:
        """Write down that creates are about to leave, the first again if it did not in time; None if others moved it.

        Raises LedgerError if this process has lost the submission's lock.
        """
        at, sent_at = awake(), self._client.server_time
        least_wait = int((self.sending_seconds + self._settings.deadline_seconds + CLOCK_SECONDS) * SECOND)
        its_jobs = [job, *islice(following, BEGUN_AT_ONCE - 1 if self._ledger.shared else 0)]
        answered = [(one.sending, one.report) for one in self._answered if one.report is not None]
        try:
            sending = self._ledger.begin(its_jobs, sent_at=sent_at, least_wait=least_wait, after=answered)
        except LedgerError:
            if not answered:
                raise
            self.settle()  # which says what was created, if it cannot be recorded
            sending = self._ledger.begin(its_jobs, sent_at=sent_at, least_wait=least_wait)
        self._answered.clear()
        if answered:
            failpoint("after-record")
        for one in its_jobs:
            if one.key in sending:
                self._begun[one.key] = Begun(submission=submission, planned=one, sending=sending[one.key], at=at)
        if job.key not in sending:
            self._locks.check(str(job.submission_id))
        return self._begun.pop(job.key, None)

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
        return {"refused": True, "sent_here_at": self._ledger.now(), "least_wait": int(seconds * SECOND)}

    def _record_answer(self, answered: Begun) -> None:
        assert answered.report is not None
        try:
            self._record(answered.sending, answered.report)
        except ApiError as error:
            self._failed(answered.submission, answered.sending, answered.planned.step, error)
        failpoint("after-record")

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


def _sent_before(job: Job) -> dict[str, Any]:
    """Return what a move writes down of a job's earlier creates, and of why it waits."""
    return {name: getattr(job, name) for name in ("message", "sent_at", "sent_here_at", "least_wait")}


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
