"""From planned jobs to created ones: upload, create, and find again what a lost answer left unknown.

One process at a time advances a submission, under its lock, so a job found SENDING has lost its answer. A create
is one POST. Where it cannot be known whether the API took it, the job is looked for by its metadata before
anything is sent again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from duckdb_mistral.errors import (
    ApiError,
    AuthenticationError,
    LedgerError,
    LimitError,
    NotFoundError,
    OutcomeUnknownError,
    SourceError,
    UnreachableError,
)
from duckdb_mistral.failpoints import failpoint
from duckdb_mistral.jobs import (
    IDENTITY_KEY,
    PART_KEY,
    PENDING,
    SUBMISSION_KEY,
    Job,
    JobReport,
    Part,
    Status,
    Step,
    Submission,
    now,
)
from duckdb_mistral.spool import SPILL, part_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from duckdb_mistral.client import BatchClient
    from duckdb_mistral.ledger import Ledger
    from duckdb_mistral.locks import Locks
    from duckdb_mistral.retry import Retry
    from duckdb_mistral.settings import Settings

#: Jobs are looked for from this long before they were sent: clocks differ, by days where one is set wrong.
CLOCK_MARGIN = 2 * 24 * 3600 * 1_000_000
#: A job that is on its way out does not stand for its part where another one does.
CANCELLING = (Status.CANCELLED, Status.CANCELLATION_REQUESTED)
#: A file that was uploaded a moment ago may not be found yet by the create.
FILE_TRIES = 3
FILE_PAUSE_SECONDS = 1.0


class Sender:
    """Advances submissions of one ledger at one workspace."""

    def __init__(self, settings: Settings, ledger: Ledger, client: BatchClient, locks: Locks, retry: Retry) -> None:
        """Work with what is given; nothing is sent yet."""
        self._settings = settings
        self._ledger = ledger
        self._client = client
        self._locks = locks
        self._retry = retry

    def advance(self, submission: Submission, *, fresh: bool = False) -> None:
        """Create the jobs of `submission` that do not exist yet; the caller holds the submission's lock.

        A `fresh` submission has no uploads that an earlier call could have left behind. Jobs without room under the
        pending limit become HELD. Raises OutcomeUnknownError where an answer was lost and the job is not listed, and
        an ApiError where the API refused.
        """
        for job in self._at(submission, Step.SENDING):
            self.reconcile(submission, job)
        waiting = self._at(submission, Step.PLANNED, Step.HELD)
        room = self._room() if waiting else 0
        for job in waiting:
            if job.request_count > room or not self._send(submission, job, fresh=fresh):
                break
            room -= job.request_count
        for job in self._at(submission, Step.PLANNED):
            self._ledger.move(job, Step.HELD, message="waits for room under the pending limit")

    def reconcile(self, submission: Submission, job: Job) -> None:
        """Look for the job of a create whose answer was lost: adopt it, or let it be sent again in time."""
        after = (job.sent_at or 0) - CLOCK_MARGIN
        found = [report for report in self._client.jobs(created_after=max(0, after)) if _is_of(report, submission, job)]
        if len(found) > 1:
            found = [report for report in found if report.status not in CANCELLING] or found
        if len(found) == 1:
            self._ledger.created(job, found[0])
            return
        if found:
            ids = " and ".join(report.job_id for report in found)
            raise OutcomeUnknownError(
                f"Part {job.part} of submission {submission.submission_id} has more than one job: {ids}. None is "
                "chosen silently: cancel all but one with mistral_batch_cancel, and run the statement again."
            )
        asked_at = self._time()
        waited = (asked_at - (job.sent_at or 0)) / 1_000_000
        if waited < 0:  # a clock was set back: the time starts again
            self._ledger.move(job, Step.SENDING, sent_at=asked_at)
            waited = 0
        if waited < self._settings.reconcile_seconds:
            left = self._settings.reconcile_seconds - waited
            raise OutcomeUnknownError(
                f"It is not known yet whether the API took part {job.part} of submission "
                f"{submission.submission_id}: the answer was lost, and the job is not listed so far. Nothing is sent "
                f"twice: run the statement again in {left:.0f} seconds or later, and it looks for the job first."
            )
        self._ledger.move(job, Step.PLANNED)

    def _time(self) -> int:
        """Return the time in µs by the server's clock, which no one sets on this machine; else by our own."""
        return self._client.server_time or now()

    def _at(self, submission: Submission, *steps: Step) -> list[Job]:
        return [job for job in self._ledger.jobs(submission.submission_id) if job.step in steps]

    def _send(self, submission: Submission, job: Job, *, fresh: bool) -> bool:
        """Upload and create one job; False where there is no room for it now."""
        for left in range(FILE_TRIES - 1, -1, -1):
            part = self._part(submission, job.part)
            file_id = part.file_id or self._upload(submission, part, fresh=fresh)
            with self._locks.waiting(f"create-{self._client.account}"):
                if job.request_count > self._room():
                    return False
                try:
                    return self._create(submission, job, file_id)
                except NotFoundError:
                    if not left:
                        raise
            if not self._client.file_exists(file_id):
                self._ledger.set_file(part, None)
            self._retry.pause(FILE_PAUSE_SECONDS)
            job = self._ledger.jobs_by_key([job.key])[0]
        return False

    def _part(self, submission: Submission, number: int) -> Part:
        return next(part for part in self._ledger.parts(submission.submission_id) if part.part == number)

    def _room(self) -> int:
        """Return how many more requests the workspace may have pending; all jobs count, whoever made them."""
        pending = 0
        for report in self._client.jobs(statuses=PENDING):
            known = self._ledger.job(report.job_id)
            pending += max(report.total_requests, known.request_count if known else 0)
        return self._settings.max_pending_requests - pending

    def _upload(self, submission: Submission, part: Part, *, fresh: bool) -> str:
        """Upload a part's requests, or find them uploaded by a call that did not live to record it."""
        path = spool_path(self._settings.home, submission.submission_id, part.part)
        if not path.exists() or path.stat().st_size != part.input_bytes:
            raise SourceError(
                f"The requests of part {part.part} of submission {submission.submission_id} are gone from "
                f"{path.parent}, and were not uploaded. Run the submit statement again with force := true to build "
                "them anew."
            )
        name = f"{submission.submission_id}-{path.name}"
        file_id = None if fresh else self._client.find_file(name, part.input_bytes)
        if file_id is None:
            failpoint("before-upload")
            file_id = self._client.upload(path, name)
            failpoint("after-upload")
        self._ledger.set_file(part, file_id)
        return file_id

    def _create(self, submission: Submission, job: Job, file_id: str) -> bool:
        """Send one create, and record what came of it; False where the API's limit holds it back."""
        before, sent_at = job.step, self._time()
        if not self._ledger.move(job, Step.SENDING, sent_at=sent_at):
            return True  # moved by a cancel meanwhile
        sending = job.evolve(step=Step.SENDING, sent_at=sent_at)
        failpoint("before-create")
        try:
            report = self._client.create(
                file_id=file_id,
                endpoint=submission.endpoint,
                model=job.model,
                metadata=dict(submission.metadata) | tags(submission, job),
                timeout_hours=submission.timeout_hours,
            )
        except LimitError as error:
            self._ledger.move(sending, Step.HELD, message=str(error))
            return False
        except ApiError as error:
            if _certainly_refused(error):
                self._ledger.move(sending, before, message=str(error))
                raise
            self._answer_lost(submission, sending, error)
            return True
        failpoint("after-create")
        self._record(sending, report)
        failpoint("after-record")
        return True

    def _record(self, sending: Job, report: JobReport) -> None:
        try:
            self._ledger.created(sending, report)
        except LedgerError as error:
            raise LedgerError(
                f"Job {report.job_id} was created, but that could not be written down. {error} The next statement "
                "looks for the job at the API and goes on with it."
            ) from error

    def _answer_lost(self, submission: Submission, job: Job, error: ApiError) -> None:
        """Look at once for the job of a create that may have been taken; raise where it is not found."""
        try:
            self.reconcile(submission, job)
        except OutcomeUnknownError as unknown:
            raise OutcomeUnknownError(f"{error} {unknown}") from None
        except ApiError:
            self._unknown(submission, job, error)
        if job.key not in {created.key for created in self._at(submission, Step.CREATED)}:
            self._unknown(submission, job, error)

    def _unknown(self, submission: Submission, job: Job, error: ApiError) -> NoReturn:
        raise OutcomeUnknownError(
            f"{error} Whether the API took part {job.part} of submission {submission.submission_id} is not known. "
            "Nothing is sent twice: run the statement again, and it looks for the job first."
        ) from None


def tags(submission: Submission, job: Job) -> dict[str, str]:
    """Return the metadata by which a job is found again."""
    return {
        SUBMISSION_KEY: submission.submission_id,
        PART_KEY: f"{job.part} {job.model}",
        IDENTITY_KEY: submission.identity,
    }


def spool_path(home: Path, submission_id: str, part: int) -> Path:
    """Return where a part's requests lie until their results are whole."""
    return home / "spool" / submission_id / part_name(part)


def abandoned_spools(home: Path, ledger: Ledger, locks: Locks) -> Iterator[Path]:
    """Yield what lies under `home`/spool that no submission owns and no process is at, holding its lock meanwhile."""
    directory = home / "spool"
    names = {path.name for path in directory.glob("*")} if directory.exists() else set()
    for name in names - {submission.submission_id for submission in ledger.submissions()} if names else ():
        # A spool's lock is held from before it is made until it is recorded; what spills beside it is under it too.
        with locks.trying(f"spool-{name.removesuffix(SPILL)}") as held:
            if held and ledger.submission(name) is None:
                yield directory / name


def _is_of(report: JobReport, submission: Submission, job: Job) -> bool:
    return tags(submission, job).items() <= dict(report.metadata).items()


def _certainly_refused(error: ApiError) -> bool:
    """Tell whether the API took nothing: the request never left, or a 3xx or 4xx (not 408) answered it."""
    if isinstance(error, UnreachableError):
        return not error.sent
    if isinstance(error, AuthenticationError | NotFoundError):
        return True
    timed_out = 408
    return error.status_code is not None and 300 <= error.status_code < 500 and error.status_code != timed_out
