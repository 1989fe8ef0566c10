"""Taking over a submission that only the workspace remembers: made by a home that is lost, or by another one.

Its jobs carry the identity of what they were submitted as. It is taken once all of them are listed: of one that is
still being created elsewhere, a part would be read as the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from duckdb_mistral.api.listing import read, widened
from duckdb_mistral.batches.restore import restore, rows_of
from duckdb_mistral.batches.reuse_files import bring_reused
from duckdb_mistral.batches.submissions import FAILING, by_submission, place_of
from duckdb_mistral.errors import OutcomeUnknownError
from duckdb_mistral.jobs.tags import counted
from duckdb_mistral.state.names import REPAIR_LOCK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from duckdb_mistral.api.listing import Listing
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Submission
    from duckdb_mistral.jobs.plan import Plan
    from duckdb_mistral.jobs.report import JobReport
    from duckdb_mistral.jobs.tags import Tags
    from duckdb_mistral.state.home import Home

#: Jobs that are still being created elsewhere are waited for; after so long without a new one, that is an error.
STILL_SECONDS = 10.0
PAUSE_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Found:
    """A submission as the workspace knows it, with its jobs and those of its retries."""

    submission_id: str
    jobs: tuple[JobReport, ...]
    retries: tuple[JobReport, ...] = ()

    @property
    def places(self) -> int:
        """How many of its jobs are listed, of several for one part and model one."""
        return len({place_of(report) for report in self.jobs})

    @property
    def expected(self) -> int:
        """How many jobs it has; the rows that it found answered are counted as one there."""
        return self.told.jobs - bool(self.told.answered)

    @property
    def is_whole(self) -> bool:
        """Whether all of its jobs are listed."""
        return self.places >= self.expected

    @property
    def told(self) -> Tags:
        """What its jobs tell of its numbers."""
        return counted(report.tags for report in self.jobs)

    @property
    def may_do(self) -> bool:
        """Whether any job, or one of its retries, has answers or may come to have them."""
        return any(report.status not in FAILING for report in (*self.jobs, *self.retries))

    def lacks_files(self, home: Home) -> bool:
        """Tell whether some of its rows are known by files alone that are neither here nor in the store."""
        bring_reused(home, self.submission_id, self.told)
        lacks_copies = rows_of(home.copies(self.submission_id)) < self.told.copies
        return lacks_copies or rows_of(home.found(self.submission_id)) < self.told.answered


def adopted(context: Context, plan: Plan, identity: str, listed: Listing) -> Submission | None:
    """Take the submission of the same content into the ledger that the workspace has; None if it has none.

    `listed` is what the workspace lists. Raises OutcomeUnknownError if only some of its jobs are there, and no
    more come, or if none are there and the list is not whole.
    """
    whole = whole_elsewhere(context, identity, listed, plan.models)
    return restored(context, plan, identity, whole) if whole else None


def whole_elsewhere(
    context: Context, identity: str, listed: Listing, models: Sequence[str], *, patient: bool = True
) -> list[Found]:
    """Return what the workspace has of the same content with all of its jobs; nothing where it has no such job.

    `models` are those of the content. Raises OutcomeUnknownError if only some of its jobs are there, and no more come,
    which is not waited for unless `patient`; or if none are there and the list is not whole.
    """
    most, waited = 0, 0.0
    while True:
        found = found_elsewhere(context, identity, listed)
        whole = [one for one in found if one.is_whole]
        if not whole and listed.may_be_cut:
            listed = widened(context.client, listed, since=0, models=models)
            found = found_elsewhere(context, identity, listed)
            whole = [one for one in found if one.is_whole]
        if whole:
            return whole
        if not found and not listed.is_whole:
            raise OutcomeUnknownError(
                "Whether the same requests were submitted from another home is not known: of the workspace's jobs, "
                f"{listed.told_short}. Nothing was sent. Run the statement again later, or with force := true to send "
                "all of them."
            )
        if not found:
            return []
        latest = max(found, key=lambda one: one.places)
        if latest.places > most:
            most, waited = latest.places, 0.0
        if waited >= STILL_SECONDS or not patient:
            raise OutcomeUnknownError(
                f"The same requests were submitted as {latest.submission_id} from another home, and so far "
                f"{latest.places} of its {latest.expected} jobs have been created. Nothing was sent. Run the statement "
                "again once that home has created the rest, and it takes them over; or submit with force := true to "
                "pay for all of them here."
            )
        context.retry.pause(PAUSE_SECONDS)
        waited += PAUSE_SECONDS
        listed = read(context.client)


def found_elsewhere(context: Context, identity: str, listed: Listing) -> list[Found]:
    """Return what the workspace lists of the same content, that the ledger does not know, and that can stand for it."""
    found = [one for one in _found(context, identity, listed.reports.values()) if one.may_do]
    return [one for one in found if not one.lacks_files(context.home)]


def restored(context: Context, plan: Plan, identity: str, whole: Sequence[Found]) -> Submission | None:
    """Take submissions of the workspace into the ledger; return the one that stands for their content then."""
    reports = [report for one in whole for report in (*one.jobs, *one.retries)]
    with context.locks.waiting(REPAIR_LOCK):
        restore(context, reports, plan)
    return context.ledger.live_submission(identity)


def _found(context: Context, identity: str, reports: Iterable[JobReport]) -> Iterator[Found]:
    """Yield the submissions of an identity that the ledger does not know."""
    by_id = dict(by_submission(reports))
    for submission_id, jobs in by_id.items():
        if jobs[0].tags.identity == identity and context.ledger.submission(submission_id) is None:
            retries = retries_of({submission_id, *(report.job_id for report in jobs)}, by_id)
            its_retries = tuple(report for retry in retries for report in retry.jobs)
            yield Found(submission_id=submission_id, jobs=tuple(jobs), retries=its_retries)


def retries_of(ids: Iterable[str], by_id: Mapping[str, Sequence[JobReport]]) -> list[Found]:
    """Return what sends again what these submissions and jobs left, and what does so for that in turn.

    `by_id` has the submissions that may do so, each with its jobs.
    """
    found: list[Found] = []
    wanted = set(ids)
    left = {one: jobs for one, jobs in by_id.items() if one not in wanted}
    while True:
        next_ones = [one for one, jobs in left.items() if jobs[0].tags.retry_of in wanted]
        if not next_ones:
            return found
        for one in next_ones:
            jobs = tuple(left.pop(one))
            found.append(Found(submission_id=one, jobs=jobs))
            wanted |= {one, *(report.job_id for report in jobs)}
