"""Before a part is sent again, the workspace is searched several times over a while, because its list may lag.

A create may have been taken although it was refused, for the refusal may come from something in between; or although it
was looked for in vain, for what a server lists just then is not all that it has.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from duckdb_mistral.api.listing import read
from duckdb_mistral.errors import OutcomeUnknownError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from duckdb_mistral.api.listing import Listing
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.batches.find import Files, Finder
    from duckdb_mistral.errors import ApiError
    from duckdb_mistral.jobs.job import Job, Submission
    from duckdb_mistral.jobs.report import JobReport

#: What the API says itself. Anything else that refuses a create stands between us and it.
OWN_REFUSALS = frozenset({400, 401, 402, 403, 404, 422, 429})
#: So long after a refusal of the API's own its job is looked for, and less where reconcile_seconds is less.
REFUSED_SECONDS = 5.0
#: No call waits longer than this until it may look for the last time.
LONGEST_WAIT_SECONDS = 10.0
#: How often it is looked at least, and the pauses between: the first one, or this share of reconcile_seconds.
LOOKS = 3
FIRST_PAUSE_SECONDS = 0.5
SHARE_OF_WINDOW = 1 / 4
LEAST_PAUSE_SECONDS = 0.02
GROWTH = 1.5


def refused_seconds(error: ApiError, reconcile_seconds: float) -> float:
    """Return for how long the job of a create that was refused is looked for before it is sent again."""
    is_own = error.status_code in OWN_REFUSALS
    return min(REFUSED_SECONDS, reconcile_seconds) if is_own else reconcile_seconds


def pauses_between_looks(reconcile_seconds: float) -> Iterator[float]:
    """Yield the seconds between looks, without end; none at all where nobody wants to wait."""
    pause = min(FIRST_PAUSE_SECONDS, reconcile_seconds * SHARE_OF_WINDOW)
    while True:
        yield pause
        pause = min(pause * GROWTH, LONGEST_WAIT_SECONDS)


class Again:
    """Makes sure that jobs which were sent once are not at the API."""

    def __init__(self, context: Context, finder: Finder) -> None:
        """Look with `finder` through the workspace of `context`."""
        self._client = context.client
        self._finder = finder
        self._retry = context.retry
        self._window = context.settings.reconcile_seconds

    def look(self, submission: Submission, jobs: Sequence[Job], listed: Listing, *, is_new: bool = False) -> Listing:
        """Adopt what the workspace has of jobs that are about to be sent; return what it listed at last.

        `listed` is what it lists now, and `jobs` are as the ledger has them now. Those that were never sent are looked
        for once, others until they are certainly not there; of a submission that `is_new`, recorded by this very call,
        a list that is not whole hides none. Raises OutcomeUnknownError if that takes too long for one call, or if the
        list is not whole.
        """
        pauses = pauses_between_looks(self._window)
        for looks in itertools.count(1):
            is_whole = self._finder.adopt_listed(submission, jobs, listed)
            if not is_whole or any(job.was_sent for job in jobs):
                jobs = self._finder.unsent([job.key for job in jobs])
            never_sent = [job for job in jobs if not job.was_sent]
            if never_sent and not is_whole and not is_new:
                raise OutcomeUnknownError(self._not_whole(never_sent[0], listed))
            sent_once = [job for job in jobs if job.was_sent]
            if not sent_once or not self._window:
                break
            left = max(map(self._finder.left, sent_once))
            if not left and looks >= LOOKS:
                if not is_whole:
                    raise OutcomeUnknownError(self._not_whole(sent_once[0], listed))
                break
            pause = next(pauses)
            pause = min(pause, left + LEAST_PAUSE_SECONDS) if left else pause
            if left > LONGEST_WAIT_SECONDS or pause > self._retry.left:
                raise OutcomeUnknownError(self._not_yet(sent_once[0], max(left, 1.0)))
            self._retry.pause(pause)
            listed = read(self._client)
        return listed

    def find(self, submission: Submission, job: Job, files: Files) -> JobReport | None:
        """Return the job of a part that others may have sent meanwhile, None if no look finds it.

        Raises OutcomeUnknownError if the list is not whole.
        """
        pauses = pauses_between_looks(self._window)
        for left in range(LOOKS - 1, -1, -1):
            listed = read(self._client)
            found, is_whole = self._finder.found(submission, job, listed, files)
            if found is not None or not self._window:
                return found
            if not left:
                if not is_whole:
                    raise OutcomeUnknownError(self._not_whole(job, listed))
                return None
            self._retry.pause(next(pauses))
        raise AssertionError("the last look returns")

    def _not_yet(self, job: Job, left: float) -> str:
        return (
            f"{_unsure(job)} Nothing is sent twice: run the statement again in {left:.0f} seconds or later; it looks "
            "for the job first."
        )

    def _not_whole(self, job: Job, listed: Listing) -> str:
        return (
            f"{_unsure(job)} Nothing is sent twice: of the workspace's jobs, {listed.told_short}. Run the statement "
            "again later, or with force := true to send it again."
        )


def _unsure(job: Job) -> str:
    told = f" {job.message}" if job.message else ""
    if not job.was_sent:
        return f"Whether part {job.part} of submission {job.submission_id} was created already is not known."
    return (
        f"Part {job.part} of submission {job.submission_id} was sent before, and whether the API took it is not "
        f"known yet.{told}"
    )
