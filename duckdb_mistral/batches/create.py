"""From planned jobs to created ones: upload, create, and find again what a lost answer left unknown.

One process at a time advances a submission, under its lock, so a job found SENDING has lost its answer. A create
is one POST, which leaves soon after SENDING was written or not at all. Where it cannot be known whether the API took
it, the job is looked for by its metadata and its input file before anything is sent again; and before any create, the
workspace is looked through for it, since a ledger may be older than the workspace: once where it was never sent,
several times where it was (`again.py`).

Jobs are sent in waves: the parts of a wave are uploaded, a few at once; then its jobs are created one after another,
in order, under the lock of the account. The workspace's pending jobs are listed once for a wave, under that lock, and
each create is counted from there on. So processes that share a `home` never exceed `max_pending_requests` together.
Jobs that are created elsewhere in the meantime are seen by the next wave, or by the API's own limit, whose refusal
makes a job HELD.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from duckdb_mistral.api.listing import PAGE_SIZE, newer, read
from duckdb_mistral.batches.again import Again, refused_seconds
from duckdb_mistral.batches.find import CLOCK_SECONDS, SECOND, Finder, tags
from duckdb_mistral.batches.spools import mark_recorded
from duckdb_mistral.batches.turns import Turns, file_name
from duckdb_mistral.errors import (
    ApiError,
    ArgumentError,
    AuthenticationError,
    LedgerError,
    LimitError,
    NotFoundError,
    OutcomeUnknownError,
    OversleptError,
    SourceError,
    UnreachableError,
)
from duckdb_mistral.jobs.job import Job, Part, Step, Submission
from duckdb_mistral.jobs.report import PENDING, JobReport
from duckdb_mistral.runtime import interrupts
from duckdb_mistral.runtime.clocks import awake
from duckdb_mistral.runtime.failpoints import failpoint
from duckdb_mistral.runtime.parallel import together
from duckdb_mistral.state.names import create_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from duckdb_mistral.api.listing import Listing
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.tags import Tags

#: A create leaves at most so long after SENDING was written, and sooner where others would look for it for less long.
MOST_SENDING_SECONDS = 20.0
#: Somebody on the way gave the server up, which may go on all the same.
TIMED_OUT = (408, 504)
#: A process that is stopped again and again between SENDING and its create gives it up.
SENDING_TRIES = 3
#: A file that was uploaded a moment ago may not be found yet by the create.
FILE_TRIES = 3
FILE_PAUSE_SECONDS = 1.0
#: So many jobs are uploaded before the first of them is created, and created before others get the account's lock.
WAVE = 25
#: While the server stores one file, which takes it a while, others use the line; more would only share it.
UPLOADS_AT_ONCE = 3


class Sender:
    """Advances submissions of one ledger at one workspace."""

    def __init__(self, context: Context) -> None:
        """Work in `context`; nothing is sent yet. Raises MissingKeyError where there is no key."""
        self._settings = context.settings
        self._home = context.home
        self._ledger = context.ledger
        self._client = context.client
        self._locks = context.locks
        self._retry = context.retry
        self._finder = Finder(context)
        self._again = Again(context, self._finder)
        self._turns = Turns(context)

    def look_for_lost(self, submission: Submission) -> None:
        """Look for the jobs of creates whose answers were lost; the caller holds the submission's lock."""
        self._finder.look_for_lost(submission)

    def look_for_unsent(self, submission: Submission) -> None:
        """Adopt what the workspace has of jobs that count as not sent; the caller holds the submission's lock.

        Raises OutcomeUnknownError where it is too early to tell for a create that was refused.
        """
        unsent = self._at(submission, Step.PLANNED, Step.HELD)
        if unsent:
            self._again.look(submission, [job.key for job in unsent], read(self._client))

    def advance(self, submission: Submission, *, held_only: bool = False, before: Listing | None = None) -> None:
        """Create the jobs of `submission` that do not exist yet; the caller holds the submission's lock.

        With `held_only`, no others than those that waited for room: what a submit did not come to, or was refused,
        is sent by a submit alone. `before` is what the workspace listed before the submission was made. Jobs without
        room under the pending limit become HELD. Raises OutcomeUnknownError where an answer was lost and the job is
        not listed, OvertakenError where others were quicker since `before`, and an ApiError where the API refused.
        """
        self.look_for_lost(submission)
        steps = (Step.HELD,) if held_only else (Step.PLANNED, Step.HELD)
        waiting = self._at(submission, *steps)
        self._check_sizes(waiting)
        if held_only and not self._may_go_on(submission, waiting):
            return
        listed = before
        if waiting:
            listed = read(self._client) if before is None else before
            keys = [job.key for job in waiting]
            listed = self._again.look(submission, keys, listed)
            waiting = self._at(submission, *steps)
            before = before if [job.key for job in waiting] == keys else None
        room = 0 if listed is None else self._room_beside(listed.reports.values())
        while wave := _fitting(waiting, room):
            mark_recorded(self._home, submission)
            files = self._uploaded(submission, wave)
            if before is not None:
                self._turns.wait(submission, before)
            left = self._create_wave(submission, wave, files, before)
            if left is None:
                break
            room, waiting, before = left, waiting[len(wave) :], None
        if not held_only:
            self._ledger.hold(submission.submission_id, "waits for room under the pending limit")

    def _may_go_on(self, submission: Submission, waiting: Sequence[Job]) -> bool:
        """Tell, at the cost of one short list, whether jobs that wait for room have any.

        Where they have none, those that were sent once are looked for all the same.
        """
        if not waiting or _fitting(waiting, self._room()):
            return bool(waiting)
        if any(job.sent_at is not None for job in waiting):
            self._finder.adopt_listed(submission, waiting, read(self._client))
        return False

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

    def _create_wave(
        self, submission: Submission, wave: Sequence[Job], files: dict[int, Part], before: Listing | None
    ) -> int | None:
        """Create the jobs of a wave; return the room that is left then, None where there was none for one of them.

        Raises OvertakenError where the workspace has jobs of the same content that `before` did not hold.
        """
        waiting = deque(wave)
        jobs = len(self._ledger.jobs(submission.submission_id))
        tries = FILE_TRIES
        while True:
            with self._locks.waiting(create_lock(self._client.account)):
                room = self._room() if before is None else self._room_unless_overtaken(submission, before)
                before = None
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
            # The refusal may have come from something in between.
            key = waiting[0].key
            self._again.look(submission, [key], read(self._client))
            if self._finder.unsent([key]):
                self._find_again(submission, files, waiting[0].part)
            else:
                waiting.popleft()

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
        """Return how many more requests the workspace may have pending."""
        return self._room_beside(self._client.jobs(statuses=PENDING))

    def _room_beside(self, reports: Iterable[JobReport]) -> int:
        """Return how many more requests may be pending beside these jobs; all of them count, whoever made them."""
        told = {report.job_id: report.total_requests for report in reports if report.status in PENDING}
        known = self._ledger.request_counts(list(told))
        pending = sum(max(count, known.get(job_id, 0)) for job_id, count in told.items())
        return self._settings.max_pending_requests - pending

    def _room_unless_overtaken(self, submission: Submission, before: Listing) -> int:
        """Return the room; raise OvertakenError where others have created the same content since `before`."""
        if len(before.reports) > PAGE_SIZE:
            room, latest = self._room(), newer(self._client, before)
        else:  # one page tells both
            everything = list(read(self._client).reports.values())
            room = self._room_beside(everything)
            latest = [report for report in everything if report.job_id not in before.reports]
        self._turns.check(submission, latest)
        return room

    def _upload(self, submission: Submission, part: Part) -> str:
        """Upload a part's requests, or find them uploaded by a call that did not live to record it."""
        path = self._home.part(submission.submission_id, part.part)
        if not path.exists() or path.stat().st_size != part.input_bytes:
            raise SourceError(
                f"The requests of part {part.part} of submission {submission.submission_id} are gone from "
                f"{path.parent}, and were not uploaded. Run the submit statement again with force := true to build "
                "them anew."
            )
        name = file_name(submission, path.name)
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
        before, sending = job.step, job
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
                    not_after=began + self._sending_seconds(),
                )
                self._check_own(sending, report)
            except OversleptError:
                if not left:
                    self._ledger.move(sending, before, refused=True)
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
                self._failed(submission, sending, before, error)
                return True
            else:
                failpoint("after-create")
                self._record(sending, report)
                failpoint("after-record")
                return True
        raise AssertionError("the last try returns or raises")

    def _begin(self, job: Job) -> Job | None:
        """Write down that a create is about to leave, again where it did not in time; None where others moved it."""
        least_wait = self._sending_seconds() + self._settings.deadline_seconds + CLOCK_SECONDS
        times = self._finder.times(int(least_wait * SECOND))
        if not self._ledger.move(job, Step.SENDING, **times):
            return None
        return job.evolve(step=Step.SENDING, **times)

    def _sending_seconds(self) -> float:
        """Return how long after SENDING was written a create may leave: it is answered while others still look."""
        deadline, window = self._settings.deadline_seconds, self._settings.reconcile_seconds
        spare = window - deadline if window > deadline else deadline / 2
        return min(MOST_SENDING_SECONDS, spare * 2 / 3)

    def _failed(self, submission: Submission, sending: Job, before: Step, error: ApiError) -> None:
        """Record what became of a create without an answer that names its job; raise what is to be told of it."""
        if not _refused(error):
            self._answer_lost(submission, sending, error)
            return
        # What is refused for what it is would be so again: a wait must not ask for ever.
        for_what_it_is = error.status_code is not None and not isinstance(error, AuthenticationError)
        step = Step.PLANNED if for_what_it_is else before
        self._ledger.move(sending, step, message=str(error), **self._refused_at(error))
        raise error

    def _refused_at(self, error: ApiError) -> dict[str, Any]:
        """Return what is written down of a create that was refused; nothing of one that never left."""
        if isinstance(error, UnreachableError):
            return {"refused": True}
        return self._finder.times(int(refused_seconds(error, self._settings.reconcile_seconds) * SECOND))

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
        if job.key not in {created.key for created in self._at(submission, Step.CREATED)}:
            self._unknown(submission, job, error)

    def _unknown(self, submission: Submission, job: Job, error: ApiError) -> NoReturn:
        raise OutcomeUnknownError(
            f"{error} Whether the API took part {job.part} of submission {submission.submission_id} is not known. "
            "Nothing is sent twice: run the statement again, and it looks for the job first."
        ) from None


def _told(submission: Submission, job: Job, jobs: int) -> Tags:
    """Return what one of so many jobs tells: by what it is found again, and what only a repair reads."""
    return replace(tags(submission, job), jobs=jobs, retry_of=submission.retry_of, models=submission.models)


def _fitting(jobs: Iterable[Job], room: int) -> list[Job]:
    """Return the first jobs, up to a wave's, that there is room for."""
    wave: list[Job] = []
    for job in jobs:
        room -= job.request_count
        if room < 0 or len(wave) == WAVE:
            break
        wave.append(job)
    return wave


def _refused(error: ApiError) -> bool:
    """Tell whether the API took nothing, as it says: the request never left, or a 3xx or 4xx (not 408) answered it."""
    if isinstance(error, UnreachableError):
        return not error.sent
    if isinstance(error, AuthenticationError | NotFoundError):
        return True
    code = error.status_code
    return code is not None and 300 <= code < 500 and code not in TIMED_OUT
