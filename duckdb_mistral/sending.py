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
    LimitError,
    NotFoundError,
    OutcomeUnknownError,
    SourceError,
    UnreachableError,
)
from duckdb_mistral.failpoints import failpoint
from duckdb_mistral.jobs import PART_KEY, PENDING, SUBMISSION_KEY, Job, JobReport, Part, Step, Submission, now
from duckdb_mistral.spool import part_name

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.client import BatchClient
    from duckdb_mistral.ledger import Ledger
    from duckdb_mistral.locks import Locks
    from duckdb_mistral.retry import Retry
    from duckdb_mistral.settings import Settings

#: Jobs are looked for from this long before they were sent: clocks differ, by days where one is set wrong.
CLOCK_MARGIN = 2 * 24 * 3600 * 1_000_000
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

    def advance(self, submission: Submission) -> None:
        """Create the jobs of `submission` that do not exist yet; the caller holds the submission's lock.

        Jobs without room under the pending limit become HELD. Raises OutcomeUnknownError where an answer was
        lost and the job is not listed, and an ApiError where the API refused.
        """
        for job in self._at(submission, Step.SENDING):
            self.reconcile(submission, job)
        parts = {part.part: part for part in self._ledger.parts(submission.submission_id)}
        for job in self._at(submission, Step.PLANNED, Step.HELD):
            if not self._send(submission, job, parts):
                break
        for job in self._at(submission, Step.PLANNED):
            self._ledger.move(job, Step.HELD, message="waits for room under the pending limit")

    def reconcile(self, submission: Submission, job: Job) -> None:
        """Look for the job of a create whose answer was lost: adopt it, or let it be sent again in time."""
        after = (job.sent_at or 0) - CLOCK_MARGIN
        found = [report for report in self._client.jobs(created_after=max(0, after)) if _is_of(report, submission, job)]
        if len(found) == 1:
            self._ledger.created(job, found[0])
            return
        if found:
            ids = " and ".join(report.job_id for report in found)
            raise OutcomeUnknownError(
                f"Part {job.part} of submission {submission.submission_id} has more than one job: {ids}. Neither is "
                "chosen silently: cancel all but one with mistral_batch_cancel, or read each by its own id."
            )
        waited = (now() - (job.sent_at or 0)) / 1_000_000
        if 0 <= waited < self._settings.reconcile_seconds:
            left = self._settings.reconcile_seconds - waited
            raise OutcomeUnknownError(
                f"It is not known yet whether the API took part {job.part} of submission "
                f"{submission.submission_id}: the answer was lost, and the job is not listed so far. Nothing is sent "
                f"twice: run the statement again in {left:.0f} seconds or later, and it looks for the job first."
            )
        self._ledger.move(job, Step.PLANNED)

    def _at(self, submission: Submission, *steps: Step) -> list[Job]:
        return [job for job in self._ledger.jobs(submission.submission_id) if job.step in steps]

    def _send(self, submission: Submission, job: Job, parts: dict[int, Part]) -> bool:
        """Upload and create one job; False where there is no room for it now."""
        if job.request_count > self._room():
            return False
        for left in range(FILE_TRIES - 1, -1, -1):
            file_id = self._uploaded(submission, parts, job.part)
            with self._locks.waiting(f"create-{self._client.account}"):
                if job.request_count > self._room():
                    return False
                try:
                    return self._create(submission, job, file_id)
                except NotFoundError:
                    if not left:
                        raise
            if not self._client.file_exists(file_id):
                self._ledger.set_file(parts[job.part], None)
            self._retry.pause(FILE_PAUSE_SECONDS)
            parts |= {part.part: part for part in self._ledger.parts(submission.submission_id)}
            job = next(j for j in self._ledger.jobs(submission.submission_id) if j.key == job.key)
        return False

    def _room(self) -> int:
        """Return how many more requests the workspace may have pending; all jobs count, whoever made them."""
        pending = 0
        for report in self._client.jobs(statuses=PENDING):
            known = self._ledger.job(report.job_id)
            pending += max(report.total_requests, known.request_count if known else 0)
        return self._settings.max_pending_requests - pending

    def _uploaded(self, submission: Submission, parts: dict[int, Part], number: int) -> str:
        """Return the file id of a part, uploading it where that has not been done."""
        part = parts[number]
        if part.file_id is not None:
            return part.file_id
        path = spool_path(self._settings.home, submission.submission_id, number)
        if not path.exists() or path.stat().st_size != part.input_bytes:
            raise SourceError(
                f"The requests of part {number} of submission {submission.submission_id} are gone from {path.parent}, "
                "and were not uploaded. Run the submit statement again with force := true to build them anew."
            )
        failpoint("before-upload")
        name = f"{submission.submission_id}-{path.name}"
        file_id, _ = self._client.upload(path, name)
        failpoint("after-upload")
        self._ledger.set_file(part, file_id)
        parts[number] = Part(
            submission_id=part.submission_id,
            part=part.part,
            request_count=part.request_count,
            input_bytes=part.input_bytes,
            file_id=file_id,
        )
        return file_id

    def _create(self, submission: Submission, job: Job, file_id: str) -> bool:
        """Send one create, and record what came of it; False where the API's limit holds it back."""
        before = job.step
        if not self._ledger.move(job, Step.SENDING):
            return True  # moved by a cancel meanwhile
        sending = job.evolve(step=Step.SENDING, sent_at=now())
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
        self._ledger.created(sending, report)
        failpoint("after-record")
        return True

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
    return {SUBMISSION_KEY: submission.submission_id, PART_KEY: f"{job.part} {job.model}"}


def spool_path(home: Path, submission_id: str, part: int) -> Path:
    """Return where a part's requests lie until their results are whole."""
    return home / "spool" / submission_id / part_name(part)


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
