"""The questions that the ledger answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from duckdb_mistral.jobs.job import Part, Step
from duckdb_mistral.jobs.report import ENDED
from duckdb_mistral.state.records import JOB_COLUMNS, job_of, submission_of
from duckdb_mistral.state.tables import FORGOTTEN, jobs, meta, parts, submissions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from duckdb_mistral.jobs.job import Job, Submission
    from duckdb_mistral.state.database import Database

#: A statement takes a bounded number of values, the fewer the older SQLite is.
MOST_VALUES = 900
#: What a status shows of a job; `report` is the JSON of what the API has said of it.
STATUS_COLUMNS = (
    *(jobs.c[name] for name in ("key", "submission_id", "part", "model", "endpoint", "step", "request_count")),
    *(jobs.c[name] for name in ("created_here_at", "checked_at", "message", "job_id", "status", "report")),
    submissions.c.created_at.label("submitted_at"),
)


class LedgerReader:
    """The questions that a ledger answers, a statement each."""

    def __init__(self, database: Database) -> None:
        """Ask `database`, whose tables are there."""
        self.database = database

    @property
    def path(self) -> Path:
        """Where the ledger lies, if it is a file."""
        return self.database.home.ledger

    @property
    def place(self) -> str:
        """Where the ledger lies, as it follows "the ledger" in a sentence."""
        return self.database.place

    @property
    def shared(self) -> bool:
        """Whether homes on other machines may use it too, so that requests may lie with another one."""
        return self.database.shared

    def now(self) -> int:
        """Return the time in µs since 1970 by the clock that all users of this ledger have in common."""
        return self.database.now()

    @property
    def writable(self) -> bool:
        """Whether more can be done than to read what is kept."""
        return self.database.writable

    def submission(self, submission_id: str) -> Submission | None:
        """Return a submission by its id."""
        return self._one_submission(submissions.c.submission_id == submission_id)

    def live_submission(self, identity: str) -> Submission | None:
        """Return the submission that the same content would be answered with."""
        return self._one_submission(submissions.c.identity == identity, submissions.c.live)

    def was_forgotten(self, submission_id: str) -> bool:
        """Tell whether another home has forgotten a submission, before anything of it was sent."""
        if not self.shared:
            return False
        return bool(self.database.rows(sa.select(meta).where(meta.c.name == f"{FORGOTTEN}{submission_id}")))

    def known(self, submission_ids: Sequence[str]) -> set[str]:
        """Return those of some ids that are of submissions."""
        with self.database.kept_open():
            return {
                row.submission_id
                for some in cut(submission_ids)
                for row in self.database.rows(
                    sa.select(submissions.c.submission_id).where(submissions.c.submission_id.in_(some))
                )
            }

    def submissions(self) -> list[Submission]:
        """Return all submissions, oldest first."""
        return self._submissions(sa.true())

    def retries(self, identifiers: Iterable[str]) -> list[Submission]:
        """Return the submissions that send again what these submissions or jobs left, and their retries in turn."""
        found: list[Submission] = []
        wanted = list(identifiers)
        while wanted:
            next_ones = [one for some in cut(wanted) for one in self._submissions(submissions.c.retry_of.in_(some))]
            found += next_ones
            wanted = [submission.submission_id for submission in next_ones]
        return found

    def parts(self, submission_id: str) -> list[Part]:
        """Return the input files of a submission, in order."""
        statement = sa.select(parts).where(parts.c.submission_id == submission_id).order_by(parts.c.part)
        return [Part(**row._mapping) for row in self.database.rows(statement)]

    def jobs(self, submission_id: str | None = None) -> list[Job]:
        """Return the jobs of one submission, or of all, in order of submission, part and model."""
        if submission_id is None:
            return self._jobs_in_order()
        return self._jobs(select_jobs().where(jobs.c.submission_id == submission_id).order_by(jobs.c.key))

    def job_count(self) -> int:
        """Return how many jobs there are of all submissions."""
        ((count,),) = self.database.rows(sa.select(sa.func.count(jobs.c.submission_id)))
        return int(count)

    def unsettled_jobs(self, steps: Sequence[Step] = (), *, account: str | None = None) -> list[Job]:
        """Return the jobs of all submissions that are at these steps, or that the API has and that have not ended.

        With `account`, only those of submissions that were last worked on with its key.
        """
        unended = sa.and_(jobs.c.job_id.is_not(None), jobs.c.status.not_in(sorted(ENDED)))
        its = sa.true() if account is None else submissions.c.account == account
        # A server may have other words for an end.
        return [job for job in self._jobs_in_order(its, sa.or_(unended, jobs.c.step.in_(steps))) if not job.ended]

    def columns(self) -> dict[str, Sequence[Any]]:
        """Return the values of STATUS_COLUMNS by their names, of the jobs of all submissions, in no order."""
        statement = sa.select(*STATUS_COLUMNS).join(submissions, submissions.c.submission_id == jobs.c.submission_id)
        rows = self.database.rows(statement)
        values = zip(*rows, strict=True) if rows else [()] * len(STATUS_COLUMNS)
        return dict(zip((column.name for column in STATUS_COLUMNS), values, strict=True))

    def jobs_of_part(self, submission_id: str, part: int) -> list[Job]:
        """Return the jobs of one part of a submission, one per model."""
        belongs = sa.and_(jobs.c.submission_id == submission_id, jobs.c.part == part)
        return self._jobs(select_jobs().where(belongs).order_by(jobs.c.key))

    def jobs_by_key(self, keys: Sequence[int]) -> list[Job]:
        """Return the jobs with these keys of the ledger, in the same order, as they are now."""
        found: dict[int, Job] = {}
        for some in cut(list(dict.fromkeys(keys))):
            found |= {job.key: job for job in self._jobs(select_jobs().where(jobs.c.key.in_(some)))}
        return [found[key] for key in keys]

    def job(self, job_id: str) -> Job | None:
        """Return the job with the API's id `job_id`."""
        return next(iter(self._jobs(select_jobs().where(jobs.c.job_id == job_id))), None)

    def request_counts(self, job_ids: Sequence[str]) -> dict[str, int]:
        """Return how many requests each of these jobs has, by the API's id; those that are not known are left out."""
        found: dict[str, int] = {}
        with self.database.kept_open():
            for some in cut(job_ids):
                rows = self.database.rows(sa.select(jobs.c.job_id, jobs.c.request_count).where(jobs.c.job_id.in_(some)))
                found |= {row.job_id: row.request_count for row in rows}
        return found

    def _one_submission(self, *conditions: Any) -> Submission | None:
        return next(iter(self._submissions(*conditions)), None)

    def _submissions(self, *conditions: Any) -> list[Submission]:
        statement = (
            sa.select(submissions).where(*conditions).order_by(submissions.c.created_at, submissions.c.submission_id)
        )
        return [submission_of(row._mapping) for row in self.database.rows(statement)]

    def _jobs(self, statement: sa.Select[Any]) -> list[Job]:
        return [job_of(row) for row in self.database.rows(statement)]

    def _jobs_in_order(self, *conditions: Any) -> list[Job]:
        return self._jobs(in_order(select_jobs()).where(*conditions))


def select_jobs() -> sa.Select[Any]:
    """Return the statement whose rows `job_of` takes."""
    return sa.select(*JOB_COLUMNS)


def in_order(statement: sa.Select[Any]) -> sa.Select[Any]:
    """Return a statement that selects jobs with those of submissions alone, oldest first."""
    return statement.join(submissions, submissions.c.submission_id == jobs.c.submission_id).order_by(
        submissions.c.created_at, submissions.c.submission_id, jobs.c.key
    )


def cut(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield the values in pieces that one statement takes."""
    for start in range(0, len(values), MOST_VALUES):
        yield values[start : start + MOST_VALUES]
