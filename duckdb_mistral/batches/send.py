"""Sending the jobs of a submission in waves, each uploaded and then created in order.

The parts of a wave are uploaded, a few at once; then its jobs are created one after another, in order, under the lock
of the account. The workspace's pending jobs are listed once for a wave, under that lock, and each create is counted
from there on. So processes that share a `home` never exceed `max_pending_requests` together. Jobs that are created
elsewhere in the meantime are seen by the next wave, or by the API's own limit, whose refusal makes a job HELD.

One process at a time advances a submission, under its lock. Before any create, the workspace is looked through for the
job, since a ledger may be older than the workspace: once where it was never sent, several times where it was
(`again.py`).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from duckdb_mistral.api.listing import PAGE_SIZE, first_pages, read
from duckdb_mistral.batches.adopt import found_elsewhere
from duckdb_mistral.batches.again import Again
from duckdb_mistral.batches.create import Creator
from duckdb_mistral.batches.find import Finder
from duckdb_mistral.batches.pending import PendingLimit
from duckdb_mistral.batches.spools import mark_recorded
from duckdb_mistral.batches.supply import lacking
from duckdb_mistral.batches.turns import OvertakenError, Turns
from duckdb_mistral.batches.upload import Uploader
from duckdb_mistral.errors import NotFoundError
from duckdb_mistral.jobs.job import LOST, UNTAKEN, Job, Part, Step, Submission
from duckdb_mistral.jobs.tags import Tags
from duckdb_mistral.runtime.clocks import awake
from duckdb_mistral.state.names import create_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from duckdb_mistral.api.listing import Listing
    from duckdb_mistral.batches.context import Context

#: A file that was uploaded a moment ago may not be found yet by the create.
FILE_TRIES = 3
#: So many jobs are uploaded before the first of them is created, and created before others get the account's lock.
WAVE = 25


class Sender:
    """Advances submissions of one ledger at one workspace."""

    def __init__(self, context: Context) -> None:
        """Work in `context`; nothing is sent yet. Raises MissingKeyError where there is no key."""
        self._context = context
        self._home = context.home
        self._ledger = context.ledger
        self._client = context.client
        self._locks = context.locks
        self._finder = Finder(context)
        self._again = Again(context, self._finder)
        self._turns = Turns(context)
        self._pending = PendingLimit(context)
        self._uploads = Uploader(context)
        self._creator = Creator(context, self._finder, self._again)
        #: When the workspace was last looked through, or a create begun: what was created elsewhere since is not known.
        self._awake_at = awake()

    def look_for_lost(self, submission: Submission) -> None:
        """Look for the jobs of creates whose answers were lost; the caller holds the submission's lock."""
        self._finder.look_for_lost(submission)

    def look_for_unsent(self, submission: Submission) -> None:
        """Adopt what the workspace has of jobs that count as not sent; the caller holds the submission's lock.

        Raises OutcomeUnknownError if it is too early to tell for a create that was refused.
        """
        unsent = self._at(submission, Step.PLANNED, Step.HELD)
        if unsent:
            self._again.look(submission, unsent, read(self._client))

    def advance(
        self,
        submission: Submission,
        *,
        held_only: bool = False,
        before: Listing | None = None,
        is_new: bool = False,
    ) -> None:
        """Create the jobs of `submission` that do not exist yet; the caller holds the submission's lock.

        With `held_only`, no others than those that waited for room: what a submit did not get to, or was refused,
        only a submit sends. `before` is what the workspace listed before the submission was made, and `is_new` says
        that this very call has recorded it. Jobs without room under the pending limit become HELD. Raises
        OutcomeUnknownError if an answer was lost and the job is not listed, or the list is not whole, OvertakenError
        if others have the same content and the API has none of these jobs, and an ApiError if the API refused.
        """
        its_jobs = self._ledger.jobs(submission.submission_id)
        if any(job.step in LOST for job in its_jobs):
            self.look_for_lost(submission)
            its_jobs = self._ledger.jobs(submission.submission_id)
        steps = (Step.HELD,) if held_only else (Step.PLANNED, Step.HELD)
        waiting = [job for job in its_jobs if job.step in steps]
        if held_only:  # what another machine has the requests of, it sends itself
            elsewhere = {part.part for part in lacking(self._context, submission)}
            waiting = [job for job in waiting if job.part not in elsewhere]
        self._pending.check(waiting)
        if held_only and not self._may_go_on(submission, waiting):
            return
        listed = before
        if waiting:
            listed = read(self._client) if before is None else before
            keys = [job.key for job in waiting]
            listed = self._again.look(submission, waiting, listed, is_new=is_new)
            self._awake_at = awake()
            waiting = [job for job in self._at(submission, *steps) if job.key in keys]
            before = self._unless_elsewhere(submission, listed)
        room = 0 if listed is None else self._pending.room_beside(listed.reports.values())
        parts = {part.part: part for part in self._ledger.parts(submission.submission_id)} if waiting else {}
        while wave := _fitting(waiting, room):
            mark_recorded(self._home, submission)
            its_parts = [parts[number] for number in dict.fromkeys(job.part for job in wave)]
            files = self._uploads.uploaded(submission, its_parts)
            if before is not None:
                self._turns.wait(submission, before)
            left = self._create_wave(submission, wave, files, before, len(its_jobs))
            if left is None:
                break
            parts |= files
            room, waiting, before = left, waiting[len(wave) :], None
        if waiting and not held_only:
            self._ledger.hold(submission.submission_id, "waits for room under the pending limit")

    def _unless_elsewhere(self, submission: Submission, listed: Listing) -> Listing | None:
        """Return `listed` where another home may still be quicker: the API has taken no job of the submission.

        It may have waited here for long, or been refused. Raises OvertakenError where another home has jobs of the same
        content already.
        """
        jobs = self._ledger.jobs(submission.submission_id)
        if Tags.from_metadata(submission.metadata).forced or not all(job.step in UNTAKEN for job in jobs):
            return None
        if found_elsewhere(self._context, submission.identity, listed):
            raise OvertakenError
        return listed

    def _may_go_on(self, submission: Submission, waiting: Sequence[Job]) -> bool:
        """Tell, at the cost of one short list, whether jobs that wait for room have any.

        If they have none, those that were sent once are looked for all the same.
        """
        if not waiting or _fitting(waiting, self._pending.room()):
            return bool(waiting)
        if any(job.was_sent for job in waiting):
            self._finder.adopt_listed(submission, waiting, read(self._client))
        return False

    def _at(self, submission: Submission, *steps: Step) -> list[Job]:
        return [job for job in self._ledger.jobs(submission.submission_id) if job.step in steps]

    def _create_wave(
        self, submission: Submission, wave: Sequence[Job], files: dict[int, Part], before: Listing | None, jobs: int
    ) -> int | None:
        """Create the jobs of a wave; return the room that is left then, None where there was none for one of them.

        `jobs` is how many the submission has in all. Raises OvertakenError where the workspace has jobs of the same
        content that `before` did not hold.
        """
        waiting = deque(wave)
        tries = FILE_TRIES
        while True:
            with self._locks.waiting(create_lock(self._client.account)), self._creator.recording():
                if before is None:
                    room = self._pending.room()
                else:
                    room, is_behind = self._room_unless_overtaken(submission, before)
                    waiting = self._still_unsent(submission, waiting) if is_behind else waiting
                before = None
                try:
                    while waiting:
                        began = awake()
                        if began - self._awake_at > self._creator.sending_seconds:
                            waiting = self._still_unsent(submission, waiting)
                            continue
                        job = waiting[0]
                        file_id = str(files[job.part].file_id)
                        if job.request_count > room or not self._creator.create(submission, job, file_id, jobs):
                            return None
                        self._awake_at = began
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
            refused = waiting.popleft()
            if self._still_unsent(submission, [refused]):
                self._uploads.find_again(submission, files, refused.part)
                waiting.appendleft(refused)

    def _still_unsent(self, submission: Submission, waiting: Iterable[Job]) -> deque[Job]:
        """Look for jobs once more; return those that the workspace does not have, and adopt the others.

        Somebody with a copy of this `home` may have created them, while this process was stopped or uploaded for long.
        """
        waiting = list(waiting)
        keys = [job.key for job in waiting]
        self._again.look(submission, self._finder.unsent(keys), read(self._client))
        self._awake_at = awake()
        unsent = {job.key for job in self._finder.unsent(keys)}
        return deque(job for job in waiting if job.key in unsent)

    def _room_unless_overtaken(self, submission: Submission, before: Listing) -> tuple[int, bool]:
        """Return the room, and whether this ledger is behind: jobs of the submission have been created since `before`.

        Raises OvertakenError where others have created the same content since then.
        """
        now = {report.job_id: report for report in first_pages(self._client, before)}
        latest = [report for job_id, report in now.items() if job_id not in before.reports]
        # Of few jobs, one page tells how far all of them are.
        few = len(before.reports) <= PAGE_SIZE
        room = self._pending.room_beside((dict(before.reports) | now).values()) if few else self._pending.room()
        self._turns.check(submission, latest)
        return room, any(report.tags.submission_id == submission.submission_id for report in latest)


def _fitting(jobs: Iterable[Job], room: int) -> list[Job]:
    """Return the first jobs, up to a wave's, that there is room for."""
    wave: list[Job] = []
    for job in jobs:
        room -= job.request_count
        if room < 0 or len(wave) == WAVE:
            break
        wave.append(job)
    return wave
