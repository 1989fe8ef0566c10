"""From planned jobs to created ones: upload, create, and find again what a lost answer left unknown.

One process at a time advances a submission, under its lock, so a job found SENDING has lost its answer. A create
is one POST. Where it cannot be known whether the API took it, the job is looked for by its metadata before
anything is sent again.

Jobs are sent in waves: the parts of a wave are uploaded, a few at once; then its jobs are created one after another,
in order, under the lock of the account. The workspace's pending jobs are listed once for a wave, under that lock, and
each create is counted from there on. So processes that share a `home` never exceed `max_pending_requests` together.
Jobs that are created elsewhere in the meantime are seen by the next wave, or by the API's own limit, whose refusal
makes a job HELD.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from duckdb_mistral import interrupts
from duckdb_mistral.errors import (
    ApiError,
    ArgumentError,
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
    JOBS_KEY,
    LOST,
    MODELS_KEY,
    PART_KEY,
    PENDING,
    RETRY_KEY,
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
from duckdb_mistral.together import together

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
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
#: What the API takes as a value of a job's metadata (schema BatchJobIn).
LONGEST_VALUE = 512
#: So many jobs are uploaded before the first of them is created, and created before others get the account's lock.
WAVE = 25
#: While the server stores one file, which takes it a while, others use the line; more would only share it.
UPLOADS_AT_ONCE = 3


class Sender:
    """Advances submissions of one ledger at one workspace."""

    def __init__(self, settings: Settings, ledger: Ledger, client: BatchClient, locks: Locks, retry: Retry) -> None:
        """Work with what is given; nothing is sent yet."""
        self._settings = settings
        self._ledger = ledger
        self._client = client
        self._locks = locks
        self._retry = retry

    def advance(self, submission: Submission, *, held_only: bool = False) -> None:
        """Create the jobs of `submission` that do not exist yet; the caller holds the submission's lock.

        With `held_only`, no others than those that waited for room: what a submit did not come to, or was refused,
        is sent by a submit alone. Jobs without room under the pending limit become HELD. Raises OutcomeUnknownError
        where an answer was lost and the job is not listed, and an ApiError where the API refused.
        """
        self.look_for_lost(submission)
        steps = (Step.HELD,) if held_only else (Step.PLANNED, Step.HELD)
        for job in self._at(submission, *steps):
            if job.sent_at is not None:  # its answer was lost once, and it may be listed by now
                self._look_again(submission, job)
        waiting = self._at(submission, *steps)
        self._check_sizes(waiting)
        room = self._room() if waiting else 0
        while wave := _fitting(waiting, room):
            files = self._uploaded(submission, wave)
            left = self._create_wave(submission, wave, files)
            if left is None:
                break
            room, waiting = left, waiting[len(wave) :]
        if not held_only:
            self._ledger.hold(submission.submission_id, "waits for room under the pending limit")

    def _check_sizes(self, waiting: Iterable[Job]) -> None:
        """Raise ArgumentError for a job that no limit would ever let through."""
        most = self._settings.max_pending_requests
        for job in waiting:
            if job.request_count > most:
                raise ArgumentError(
                    f"Part {job.part} of submission {job.submission_id} has {job.request_count:,} requests, more than "
                    f"max_pending_requests allows at all ({most:,}), so it would wait for ever. Raise that setting, or "
                    f"give the part up with mistral_batch_cancel('{job.submission_id}')."
                )

    def look_for_lost(self, submission: Submission) -> None:
        """Look for the jobs of creates whose answers were lost; the caller holds the submission's lock."""
        for job in self._at(submission, *LOST):
            self.reconcile(submission, job)

    def reconcile(self, submission: Submission, job: Job) -> None:
        """Look for the job of a create whose answer was lost: adopt it, or let it be sent again in time.

        One that was given up is dropped instead of sent again.
        """
        found = self._listed(submission, job)
        if found is not None:
            self._ledger.created(job, found)
            return
        asked_at = self._time()
        waited = (asked_at - (job.sent_at or 0)) / 1_000_000
        if waited < 0:  # a clock was set back: the time starts again
            self._ledger.move(job, job.step, sent_at=asked_at)
            waited = 0
        if waited < self._settings.reconcile_seconds:
            left = self._settings.reconcile_seconds - waited
            raise OutcomeUnknownError(
                f"It is not known yet whether the API took part {job.part} of submission "
                f"{submission.submission_id}: the answer was lost, and the job is not listed so far. Nothing is sent "
                f"twice: run the statement again in {left:.0f} seconds or later, and it looks for the job first."
            )
        message = "The answer to its create was lost, and the API has no such job."
        self._ledger.move(job, Step.DROPPED if job.step is Step.GIVEN_UP else Step.PLANNED, message=message)

    def _look_again(self, submission: Submission, job: Job) -> None:
        """Adopt the job of a create that was to be sent again, where it is listed by now."""
        found = self._listed(submission, job)
        if found is not None and self._ledger.move(job, Step.SENDING):
            self._ledger.created(job.evolve(step=Step.SENDING), found)

    def _listed(self, submission: Submission, job: Job) -> JobReport | None:
        """Return the job of a create whose answer was lost, as the API lists it; None where it does not."""
        after = (job.sent_at or 0) - CLOCK_MARGIN
        found = [report for report in self._client.jobs(created_after=max(0, after)) if _is_of(report, submission, job)]
        if len(found) > 1:
            found = [report for report in found if report.status not in CANCELLING] or found
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
        return found[0] if found else None

    def _time(self) -> int:
        """Return the time in µs by the server's clock, which no one sets on this machine; else by our own."""
        return self._client.server_time or now()

    def _at(self, submission: Submission, *steps: Step) -> list[Job]:
        return [job for job in self._ledger.jobs(submission.submission_id) if job.step in steps]

    def _uploaded(self, submission: Submission, wave: Sequence[Job]) -> dict[int, Part]:
        """Return the parts of jobs by number, each with its file at the API; those without one are uploaded."""
        wanted = {job.part for job in wave}
        files = {part.part: part for part in self._ledger.parts(submission.submission_id) if part.part in wanted}

        def keep(part: Part, file_id: str) -> None:
            self._ledger.set_file(part, file_id)
            files[part.part] = replace(part, file_id=file_id)

        missing = [part for part in files.values() if part.file_id is None]
        if missing:
            self._ledger.begin_uploads(missing)
        if len(missing) > 1:
            # Daemons, so that a program that was interrupted can end while the server keeps silent.
            together(
                missing,
                lambda part: self._upload(submission, part),
                keep,
                threads=UPLOADS_AT_ONCE,
                daemon=True,
            )
        else:
            for part in missing:
                keep(part, self._upload(submission, part))
        return files

    def _create_wave(self, submission: Submission, wave: Sequence[Job], files: dict[int, Part]) -> int | None:
        """Create the jobs of a wave; return the room that is left then, None where there was none for one of them."""
        waiting = deque(wave)
        jobs = len(self._ledger.jobs(submission.submission_id))
        tries = FILE_TRIES
        while True:
            with self._locks.waiting(f"create-{self._client.account}"):
                room = self._room()
                try:
                    while waiting:
                        job = waiting[0]
                        file_id = str(files[job.part].file_id)
                        if job.request_count > room or not self._create(submission, job, file_id, jobs):
                            return None
                        room -= job.request_count
                        waiting.popleft()
                        tries = FILE_TRIES
                except NotFoundError:
                    waiting[0] = waiting[0].evolve(step=Step.PLANNED)
                    tries -= 1
                    if not tries:
                        raise
                else:
                    return room
            self._find_again(submission, files, waiting[0].part)

    def _find_again(self, submission: Submission, files: dict[int, Part], number: int) -> None:
        """Give a file that the create did not find a moment; upload it again where it is gone."""
        part = files[number]
        if not self._client.file_exists(str(part.file_id)):
            self._ledger.set_file(part, None)
            part = replace(part, file_id=None, upload_began=False)
        self._retry.pause(FILE_PAUSE_SECONDS)
        if part.file_id is None:
            part = replace(part, file_id=self._upload(submission, part))
            self._ledger.set_file(part, part.file_id)
        files[number] = part

    def _room(self) -> int:
        """Return how many more requests the workspace may have pending; all jobs count, whoever made them."""
        told = {report.job_id: report.total_requests for report in self._client.jobs(statuses=PENDING)}
        known = self._ledger.request_counts(list(told))
        pending = sum(max(count, known.get(job_id, 0)) for job_id, count in told.items())
        return self._settings.max_pending_requests - pending

    def _upload(self, submission: Submission, part: Part) -> str:
        """Upload a part's requests, or find them uploaded by a call that did not live to record it."""
        path = spool_path(self._settings.home, submission.submission_id, part.part)
        if not path.exists() or path.stat().st_size != part.input_bytes:
            raise SourceError(
                f"The requests of part {part.part} of submission {submission.submission_id} are gone from "
                f"{path.parent}, and were not uploaded. Run the submit statement again with force := true to build "
                "them anew."
            )
        name = f"{submission.submission_id}-{path.name}"
        may_be_there = part.upload_began is not False
        file_id = self._client.find_file(name, part.input_bytes) if may_be_there else None
        if file_id is None:
            failpoint("before-upload")
            file_id = self._client.upload(path, name)
            failpoint("after-upload")
        return file_id

    def _create(self, submission: Submission, job: Job, file_id: str, jobs: int) -> bool:
        """Send the create of one of so many jobs, and record what came of it; False where the API's limit holds it."""
        interrupts.check()
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
                metadata=dict(submission.metadata) | tags(submission, job) | _told(submission, jobs),
                timeout_hours=submission.timeout_hours,
            )
            self._check_own(sending, report)
        except LimitError as error:
            self._ledger.move(sending, Step.HELD, message=str(error), refused=True)
            return False
        except ApiError as error:
            if _certainly_refused(error):
                # What is refused for what it is would be so again: a wait must not ask for ever.
                for_what_it_is = error.status_code is not None and not isinstance(error, AuthenticationError)
                step = Step.PLANNED if for_what_it_is else before
                self._ledger.move(sending, step, message=str(error), refused=True)
                raise
            self._answer_lost(submission, sending, error)
            return True
        failpoint("after-create")
        self._record(sending, report)
        failpoint("after-record")
        return True

    def _check_own(self, sending: Job, report: JobReport) -> None:
        """Raise ApiError where the answer to a create names the job of another one: its own is to be looked for."""
        known = self._ledger.job(report.job_id)
        if known is not None and known.submission_id is not None and known.key != sending.key:
            raise ApiError(f"The answer to the create names job {report.job_id}, which is another one.")

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
        lost_at = self._time()  # the answer may have taken long to be lost
        self._ledger.move(job, Step.SENDING, sent_at=lost_at)
        job = job.evolve(sent_at=lost_at)
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


def _told(submission: Submission, jobs: int) -> dict[str, str]:
    """Return the metadata that only a repair reads; no job is found by it."""
    told = {JOBS_KEY: str(jobs)}
    if submission.retry_of is not None:
        told[RETRY_KEY] = submission.retry_of
    models = json.dumps(submission.models)
    if len(submission.models) > 1 and len(models) <= LONGEST_VALUE:
        told[MODELS_KEY] = models
    return told


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


def _fitting(jobs: Iterable[Job], room: int) -> list[Job]:
    """Return the first jobs, up to a wave's, that there is room for."""
    wave: list[Job] = []
    for job in jobs:
        room -= job.request_count
        if room < 0 or len(wave) == WAVE:
            break
        wave.append(job)
    return wave


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
