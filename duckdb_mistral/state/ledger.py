"""The ledger: what was submitted, and how far each part of it came. The only writer of job state.

SQLAlchemy Core on SQLite under `home`, shared by every process of the user, or on PostgreSQL, shared by a team. Money
is spent between two writes: the intent is written before a job is created and the outcome after, and a job moves only
from a step that is expected. No key and no text of a request is written here.

What is written may be run twice, where the answer of a database elsewhere was lost: see `database.Database`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from duckdb_mistral.errors import LedgerError
from duckdb_mistral.jobs.job import Job, Part, Step, Submission, now
from duckdb_mistral.state import reports
from duckdb_mistral.state.reading import LedgerReader
from duckdb_mistral.state.records import (
    answered_row,
    planned_rows,
    reported_values,
    restored_row,
    submission_row,
)
from duckdb_mistral.state.sqlite import SQLiteDatabase
from duckdb_mistral.state.stamp import check_not_moved
from duckdb_mistral.state.steps import forget, is_now, moved, retire
from duckdb_mistral.state.tables import jobs, parts, submissions
from duckdb_mistral.state.versions import prepare

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from duckdb_mistral.jobs.report import JobReport
    from duckdb_mistral.state.database import Database
    from duckdb_mistral.state.home import Home
    from duckdb_mistral.state.locks import Locks


#: So often something is tried again that another process was quicker with.
RACES = 10


class OtherJobError(LedgerError):
    """The API's id of a job already belongs to another job."""


class Ledger(LedgerReader):
    """The ledger of one `home` directory, or of a team."""

    def __init__(self, home: Home, address: str | None = None, *, locks: Locks | None = None) -> None:
        """Open the ledger under `home`, or on PostgreSQL at `address`; make it, and `home`, where they do not exist.

        With `locks`, a create is begun only under the lock of its submission. Raises LedgerError if the ledger cannot
        be opened, or if it is lost, damaged, of a newer version or moved to a team's.
        """
        super().__init__(SQLiteDatabase(home) if address is None else _postgres(home, address))
        self._locks = locks
        prepare(self.database)
        check_not_moved(self.database)

    def kept_open(self) -> AbstractContextManager[None]:
        """Let the many transactions of a block be cheap, as Database.kept_open does."""
        return self.database.kept_open()

    def settle(self) -> None:
        """Bring all that is written into the one file at `path`, so that it can be moved."""
        self.database.settle()

    def add(
        self,
        submission: Submission,
        its_parts: Sequence[Part],
        answered: tuple[int, str, int] | None = None,
        *,
        under: str | None = None,
    ) -> bool:
        """Record what is about to be sent: the submission, its parts, and a planned job per part and model.

        `answered` are the rows that were answered before: how many, and the name and bytes of their results file.
        Returns False, and records nothing, where another process has recorded the same content first. `under` is a lock
        that the caller holds: raises LedgerError, and records nothing, where it was lost.
        """

        def insert(connection: sa.Connection) -> None:
            if under is not None and self._locks is not None:
                self._locks.keep(connection, under)
            connection.execute(submissions.insert(), submission_row(submission))
            if its_parts:
                connection.execute(parts.insert(), [asdict(part) for part in its_parts])
                connection.execute(jobs.insert(), list(planned_rows(submission, its_parts)))
            if answered is not None:
                connection.execute(jobs.insert(), answered_row(submission, *answered))

        try:
            self.database.transact(insert)
        except sa.exc.IntegrityError:
            return self.submission(submission.submission_id) is not None  # inserted twice, as its answer was lost
        return True

    def restore(
        self,
        submission: Submission,
        its_parts: Sequence[Part],
        reports: Mapping[tuple[int, str], JobReport],
        answered: tuple[int, str, int] | None = None,
        *,
        live: bool = True,
        cancelled: bool = False,
    ) -> int:
        """Record a submission that the API's jobs tell of, by part and model, and `answered` as `add` takes it.

        A job of a part that the API does not have is planned. Where `live`, it becomes the live one of its content;
        else, or where `cancelled`, nothing of it is sent any more. Returns how many jobs are planned.
        """
        rows = {(row["part"], row["model"]): row for row in planned_rows(submission, its_parts)}
        restored = [restored_row(row, reports.get(key), planned=live and not cancelled) for key, row in rows.items()]

        def insert(connection: sa.Connection) -> None:
            first = connection.execute(
                sa.select(submissions.c.submission_id).where(
                    submissions.c.identity == submission.identity, submissions.c.live
                )
            ).scalar()
            if live and first is not None:
                retire(connection, first)
            connection.execute(submissions.insert(), submission_row(submission, live=live))
            connection.execute(parts.insert(), [asdict(part) for part in its_parts])
            for report in reports.values():
                connection.execute(jobs.delete().where(jobs.c.job_id == report.job_id))
            connection.execute(jobs.insert(), restored)
            if answered is not None:
                connection.execute(jobs.insert(), answered_row(submission, *answered))

        for left in range(RACES - 1, -1, -1):
            try:
                self.database.transact(insert)
            except sa.exc.IntegrityError:
                if self.submission(submission.submission_id) is not None:  # restored twice, or by another process
                    break
                if not left:
                    raise LedgerError(_busy(self.place)) from None
            else:
                break
        return sum(row["step"] == Step.PLANNED for row in restored)

    def retire(self, submission_id: str) -> None:
        """Let the same content be submitted again; drop what of this submission was never created.

        The caller holds the submission's lock: what is being sent has lost its answer, and is not sent again.
        """
        self.database.transact(lambda connection: retire(connection, submission_id))

    def forget(self, submission_id: str) -> bool:
        """Forget a submission none of whose jobs the API has; False, and it stays, where it may have one."""
        return self.database.transact(lambda connection: forget(connection, submission_id, noted=self.shared))

    def set_account(self, submission_id: str, account: str) -> None:
        """Record that another key of the same workspace works on this submission now."""
        its = submissions.update().where(submissions.c.submission_id == submission_id)
        self.database.write(its.values(account=account))

    def begin_uploads(self, its_parts: Sequence[Part]) -> None:
        """Record that parts of a submission are about to be uploaded: from here on they may be at the API."""
        if its_parts:
            self.database.write(_update_of(its_parts).values(upload_began=True))

    def set_files(self, its_parts: Sequence[Part]) -> None:
        """Record the files that parts of a submission were uploaded as; None where one has to be uploaded again."""
        if its_parts:
            file_id = sa.case({part.part: part.file_id for part in its_parts}, value=parts.c.part)
            self.database.write(_update_of(its_parts).values(file_id=file_id))

    def move(
        self,
        job: Job,
        step: Step,
        *,
        message: str | None = None,
        sent_at: int | None = None,
        sent_here_at: int | None = None,
        least_wait: int | None = None,
        refused: bool = False,
    ) -> bool:
        """Move a job from the step that `job` shows, along an arrow of Step; False where it is no longer there.

        To SENDING it moves only as long as this process holds the lock of its submission, where that can be lost. A
        create that was sent again since `job` was read, by its `sent_at`, counts as another step. `sent_at` is when
        its create was sent, with `sent_here_at` and `least_wait` as `Job` has them. With `refused`, nobody waits for
        an answer: it was refused, at these times, or never left.
        """
        values: dict[str, Any] = {"step": step, "message": message}
        if sent_at is not None or refused:
            values |= {"sent_at": sent_at, "sent_here_at": sent_here_at, "least_wait": least_wait}
        move = moved(job, values)
        done = is_now(job, values)
        if step is Step.SENDING and self._locks is not None and job.submission_id is not None:
            held = self._locks.conditions(job.submission_id)
            move, done = move.where(*held), done.where(*held)
        return self.database.write(move, done=done) == 1

    def begin(
        self, job: Job, *, sent_at: int | None, least_wait: int, after: tuple[Job, JobReport] | None = None
    ) -> Job | None:
        """Write down that the create of a job of a submission is about to leave; return the job as it is then.

        `after` is the job whose create was answered before, and what the API says of it: it is recorded first, in the
        same transaction, but need not be where this raises. None stands for a `job` that is no longer where it was
        read, or whose submission's lock this process has lost. `sent_at` is the API's time, if it has told it. Raises
        OtherJobError where the job of `after` is that of another part.
        """
        clock = self.database.clock()
        written: dict[str, Any] = {"step": Step.SENDING, "message": None, "least_wait": least_wait}
        written |= {} if sent_at is None else {"sent_at": sent_at}
        held = [] if self._locks is None else self._locks.conditions(str(job.submission_id))
        move = moved(job, {"sent_at": clock, "sent_here_at": clock} | written).where(*held)
        times = (jobs.c.sent_at, jobs.c.sent_here_at)
        row = sa.select(*times).where(jobs.c.key == job.key)
        done = is_now(job, written).where(*held).with_only_columns(*times)
        try:
            found = self.database.updated(move, row, done=done, before=None if after is None else _creation(*after))
        except sa.exc.IntegrityError:
            if after is None:
                raise
            self.created(*after)
            found = self.database.updated(move, row, done=done)
        return None if found is None else job.evolve(**written | dict(found._mapping))

    def hold(self, submission_id: str, message: str) -> None:
        """Let all jobs of a submission that are planned wait for room."""
        planned = sa.and_(jobs.c.submission_id == submission_id, jobs.c.step == Step.PLANNED)
        self.database.write(jobs.update().where(planned).values(step=Step.HELD, message=message))

    def created(self, job: Job, report: JobReport) -> bool:
        """Record the job that the API created; False if `job` has moved meanwhile.

        Raises OtherJobError where that is the job of another part.
        """
        move = _creation(job, report)
        done = is_now(job, {"step": Step.CREATED, "job_id": report.job_id})
        try:
            return self.database.write(move, done=done) == 1
        except sa.exc.IntegrityError:
            pass

        def take_over(connection: sa.Connection) -> bool:
            # Whoever asked for it by its id before had it adopted as another program's.
            connection.execute(jobs.delete().where(jobs.c.job_id == report.job_id, jobs.c.submission_id.is_(None)))
            if connection.execute(move).rowcount == 1:
                return True
            connection.rollback()
            return connection.execute(done).first() is not None

        for _ in range(RACES):  # it may be adopted again in between
            try:
                return self.database.transact(take_over)
            except sa.exc.IntegrityError:
                known = self.job(report.job_id)
                if known is not None and known.submission_id is not None:
                    break
        raise OtherJobError(f"Job {report.job_id} is that of another part.") from None

    def record(self, *its_reports: JobReport, anew: bool = False) -> None:
        """Record what the API says of jobs; what was asked before a job had ended does not move it out of that.

        With `anew`, they were asked for although they had ended: a job whose results are not kept whole may go on.
        """
        reports.record(self.database, its_reports, anew=anew)

    def keep_results(
        self,
        job: Job,
        name: str | None,
        size: int | None = None,
        missing: int | None = None,
        *,
        strangers: str | None = None,
    ) -> None:
        """Record the file, under `home`, that holds all results of a job, and its bytes; None where none does.

        `missing` is how many rows have no answer in it, as far as `job` tells; `strangers` what is told of answers to
        custom_ids that were never sent.
        """
        told = job.report.told if job.report is not None and missing is not None else None
        # Without a store each home makes a file of its own, of another size, of the same answers.
        size = None if self.shared and self.database.home.store is None else size
        values = {"results": name, "results_bytes": size, "results_missing": missing, "results_told": told}
        # A job that was never created keeps what was told of that.
        message = {} if job.report is None else {"message": strangers}
        self.database.write(jobs.update().where(jobs.c.key == job.key).values(**values, **message))

    def count_missing(self, job: Job, missing: int) -> None:
        """Record how many rows of a job's kept results have no answer, of results that were kept without that."""
        same = sa.and_(jobs.c.key == job.key, jobs.c.results == job.results)
        self.database.write(jobs.update().where(same).values(results_missing=missing))

    def adopt(self, report: JobReport, server_url: str) -> Job:
        """Record a job that another program created, so that its results can be kept."""
        row = {
            "part": 1,
            "model": report.model or "",
            "endpoint": report.endpoint or "",
            "server_url": server_url,
            "step": Step.CREATED,
            "request_count": report.total_requests,
            "input_bytes": 0,
            "created_here_at": now(),
        }
        for _ in range(RACES):
            try:
                self.database.write(jobs.insert(), row | reported_values(report))
            except sa.exc.IntegrityError:
                self.record(report)
            found = self.job(report.job_id)
            if found is not None:  # it gives way to that of a submission, just as that is being recorded
                return found
        raise LedgerError(_busy(self.place))


def _update_of(its_parts: Sequence[Part]) -> sa.Update:
    """Return an UPDATE of some parts of one submission."""
    numbers = [part.part for part in its_parts]
    return parts.update().where(parts.c.submission_id == its_parts[0].submission_id, parts.c.part.in_(numbers))


def _creation(job: Job, report: JobReport) -> sa.Update:
    """Return the statement that records the job that the API created."""
    return moved(job, {"step": Step.CREATED, "message": None} | reported_values(report))


def _postgres(home: Home, address: str) -> Database:
    from duckdb_mistral.state.postgres import PostgresDatabase

    return PostgresDatabase(home, address)


def _busy(place: str) -> str:
    return f"Other processes keep changing the same rows of the ledger {place}, so nothing is sent. Try again."
