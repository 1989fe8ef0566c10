"""The ledger: what was submitted, and how far each part of it came. The only writer of job state.

SQLAlchemy Core on SQLite under `home`, shared by every process of the user. Money is spent between two writes:
the intent is written before a job is created and the outcome after, and a job moves only from a step that is
expected. No key and no text of a request is written here.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from duckdb_mistral.errors import LedgerError
from duckdb_mistral.jobs.job import ARROWS, LOST, Job, Part, Step, Submission, now
from duckdb_mistral.runtime.failpoints import failpoint
from duckdb_mistral.state.inventory import entries
from duckdb_mistral.state.owner import open_home, read_only, unwritable
from duckdb_mistral.state.records import (
    answered_row,
    job_of,
    planned_rows,
    report_of,
    reported_values,
    restored_row,
    submission_of,
    submission_row,
)
from duckdb_mistral.state.tables import MIGRATIONS, SCHEMA_VERSION, jobs, meta, parts, submissions, tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from duckdb_mistral.jobs.report import JobReport
    from duckdb_mistral.state.home import Home

#: How long a write waits for another process's write.
BUSY_SECONDS = 30
#: A statement takes a bounded number of values, the fewer the older SQLite is.
MOST_VALUES = 900
#: What SQLite says where the disk has no room for the file of memory that its processes share.
NO_ROOM = ("SQLITE_IOERR_SHMOPEN", "SQLITE_IOERR_SHMSIZE")


class DamagedLedgerError(LedgerError):
    """The file is no ledger any more, and only a repair goes on from here."""


def is_lost(home: Home) -> bool:
    """Tell whether there is no ledger under `home`, but files that only a ledger explains."""
    # Another process may have made the ledger meanwhile, and files after it.
    return not home.ledger.exists() and _holds_more(home) and not home.ledger.exists()


def _holds_more(home: Home) -> bool:
    """Tell whether there are files under `home` that only a ledger explains."""
    return any(map(entries, home.explained)) or bool(home.asides)


class Ledger:
    """The ledger of one `home` directory."""

    def __init__(self, home: Home) -> None:
        """Open the ledger under `home`, and make both where they do not exist.

        Raises LedgerError where that cannot be done, or where the file is lost, damaged or of a newer version.
        """
        self._home = home
        self.path = home.ledger
        #: Whether more can be done than to read what is kept.
        self.writable = open_home(home.path)
        if is_lost(home):
            raise LedgerError(_lost(home))
        try:
            if self.writable or not self.path.exists():
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise unwritable(home.path, str(error.strerror)) from error
        self._engine = sa.create_engine("sqlite://", poolclass=sa.NullPool, creator=self._connect)
        self._open_schema()

    # Reading

    def submission(self, submission_id: str) -> Submission | None:
        """Return a submission by its id."""
        return self._one_submission(submissions.c.submission_id == submission_id)

    def live_submission(self, identity: str) -> Submission | None:
        """Return the submission that the same content would be answered with."""
        return self._one_submission(submissions.c.identity == identity, submissions.c.live)

    def submissions(self) -> list[Submission]:
        """Return all submissions, oldest first."""
        return self._submissions(sa.true())

    def retries(self, identifiers: Iterable[str]) -> list[Submission]:
        """Return the submissions that send again what these submissions or jobs left, and their retries in turn."""
        found: list[Submission] = []
        wanted = list(identifiers)
        while wanted:
            next_ones = self._submissions(submissions.c.retry_of.in_(wanted))
            found += next_ones
            wanted = [submission.submission_id for submission in next_ones]
        return found

    def parts(self, submission_id: str) -> list[Part]:
        """Return the input files of a submission, in order."""
        statement = sa.select(parts).where(parts.c.submission_id == submission_id).order_by(parts.c.part)
        with self._reading() as connection:
            return [Part(**row) for row in connection.execute(statement).mappings()]

    def jobs(self, submission_id: str | None = None) -> list[Job]:
        """Return the jobs of one submission, or of all, in order of submission, part and model."""
        belongs = submissions.c.submission_id == jobs.c.submission_id
        wanted = submissions.c.submission_id == submission_id if submission_id else sa.true()
        statement = (
            sa.select(jobs)
            .join(submissions, belongs)
            .where(wanted)
            .order_by(submissions.c.created_at, submissions.c.submission_id, jobs.c.key)
        )
        return self._jobs(statement)

    def jobs_of_part(self, submission_id: str, part: int) -> list[Job]:
        """Return the jobs of one part of a submission, one per model."""
        belongs = sa.and_(jobs.c.submission_id == submission_id, jobs.c.part == part)
        return self._jobs(sa.select(jobs).where(belongs).order_by(jobs.c.key))

    def jobs_by_key(self, keys: Sequence[int]) -> list[Job]:
        """Return the jobs with these keys of the ledger, in the same order, as they are now."""
        found: dict[int, Job] = {}
        for start in range(0, len(keys), MOST_VALUES):
            wanted = sa.select(jobs).where(jobs.c.key.in_(keys[start : start + MOST_VALUES]))
            found |= {job.key: job for job in self._jobs(wanted)}
        return [found[key] for key in keys]

    def job(self, job_id: str) -> Job | None:
        """Return the job with the API's id `job_id`."""
        return next(iter(self._jobs(sa.select(jobs).where(jobs.c.job_id == job_id))), None)

    def request_counts(self, job_ids: Sequence[str]) -> dict[str, int]:
        """Return how many requests each of these jobs has, by the API's id; those that are not known are left out."""
        found: dict[str, int] = {}
        with self._reading() as connection:
            for start in range(0, len(job_ids), MOST_VALUES):
                wanted = jobs.c.job_id.in_(job_ids[start : start + MOST_VALUES])
                rows = connection.execute(sa.select(jobs.c.job_id, jobs.c.request_count).where(wanted))
                found |= {row.job_id: row.request_count for row in rows}
        return found

    # Writing

    def add(
        self, submission: Submission, its_parts: Sequence[Part], answered: tuple[int, str, int] | None = None
    ) -> bool:
        """Record what is about to be sent: the submission, its parts, and a planned job per part and model.

        `answered` are the rows that were answered before: how many, and the name and bytes of their results file.
        Returns False, and records nothing, where another process has recorded the same content first.
        """
        try:
            with self._writing() as connection:
                connection.execute(submissions.insert(), submission_row(submission))
                if its_parts:
                    connection.execute(parts.insert(), [asdict(part) for part in its_parts])
                    connection.execute(jobs.insert(), list(planned_rows(submission, its_parts)))
                if answered is not None:
                    connection.execute(jobs.insert(), answered_row(submission, *answered))
        except sa.exc.IntegrityError:
            return False
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
        with self._writing() as connection:
            first = connection.execute(
                sa.select(submissions.c.submission_id).where(
                    submissions.c.identity == submission.identity, submissions.c.live
                )
            ).scalar()
            if live and first is not None:
                self._retire(connection, first)
            connection.execute(submissions.insert(), submission_row(submission, live=live))
            connection.execute(parts.insert(), [asdict(part) for part in its_parts])
            for report in reports.values():
                connection.execute(jobs.delete().where(jobs.c.job_id == report.job_id))
            connection.execute(jobs.insert(), restored)
            if answered is not None:
                connection.execute(jobs.insert(), answered_row(submission, *answered))
        return sum(row["step"] == Step.PLANNED for row in restored)

    def retire(self, submission_id: str) -> None:
        """Let the same content be submitted anew; drop what of this submission was never created.

        The caller holds the submission's lock: what is being sent has lost its answer, and is not sent again.
        """
        with self._writing() as connection:
            self._retire(connection, submission_id)

    def forget(self, submission_id: str) -> bool:
        """Forget a submission of which nothing was sent; False, and it stays, where anything was."""
        with self._writing() as connection:
            its = jobs.c.submission_id == submission_id
            sent = (
                sa.select(sa.func.count())
                .select_from(jobs)
                .where(its, jobs.c.step.not_in([Step.PLANNED, Step.ANSWERED]))
            )
            if connection.execute(sent).scalar_one():
                return False
            connection.execute(jobs.delete().where(its))
            connection.execute(parts.delete().where(parts.c.submission_id == submission_id))
            connection.execute(submissions.delete().where(submissions.c.submission_id == submission_id))
        return True

    def set_account(self, submission_id: str, account: str) -> None:
        """Record that another key of the same workspace works on this submission now."""
        with self._writing() as connection:
            connection.execute(
                submissions.update().where(submissions.c.submission_id == submission_id).values(account=account)
            )

    def begin_uploads(self, its_parts: Sequence[Part]) -> None:
        """Record that parts are about to be uploaded: from here on they may be at the API."""
        with self._writing() as connection:
            for part in its_parts:
                connection.execute(_part(part).values(upload_began=True))

    def set_file(self, part: Part, file_id: str | None) -> None:
        """Record the file that a part was uploaded as, or that it has to be uploaded again."""
        with self._writing() as connection:
            connection.execute(_part(part).values(file_id=file_id))

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

        A create that was sent again since `job` was read, by its `sent_at`, counts as another step. `sent_at` is when
        its create was sent, with `sent_here_at` and `least_wait` as `Job` has them. With `refused`, nobody waits for
        an answer: it was refused, at `sent_here_at`, or never left.
        """
        values: dict[str, Any] = {"step": step, "message": message}
        if sent_at is not None or refused:
            values |= {"sent_at": sent_at, "sent_here_at": sent_here_at, "least_wait": least_wait}
        as_read = jobs.c.sent_at.is_not_distinct_from(job.sent_at) if job.step in LOST else sa.true()
        return self._update(job, values, where=as_read)

    def hold(self, submission_id: str, message: str) -> None:
        """Let all jobs of a submission that are planned wait for room."""
        planned = sa.and_(jobs.c.submission_id == submission_id, jobs.c.step == Step.PLANNED)
        with self._writing() as connection:
            connection.execute(jobs.update().where(planned).values(step=Step.HELD, message=message))

    def created(self, job: Job, report: JobReport) -> bool:
        """Record the job that the API created; False where `job` has moved meanwhile."""
        # Whoever asked for it by its id before had it adopted as another program's.
        adopted = jobs.delete().where(jobs.c.job_id == report.job_id, jobs.c.submission_id.is_(None))
        return self._update(job, {"step": Step.CREATED, "message": None} | reported_values(report), first=adopted)

    def record(self, *reports: JobReport, anew: bool = False) -> None:
        """Record what the API says of jobs; what was asked before a job had ended does not move it out of that.

        With `anew`, they were asked for although they had ended: a job whose results are not kept whole may go on.
        """
        with self._writing() as connection:
            for report in reports:
                if not report.ended and self._stays_ended(connection, report.job_id, anew=anew):
                    continue
                # The requests of another program's job are known from the API alone, which counts them when it begins;
                # so are those of a job that was found in the workspace before that.
                told = report.total_requests or jobs.c.request_count
                unknown = sa.or_(jobs.c.submission_id.is_(None), jobs.c.request_count == 0)
                counted = sa.case((unknown, told), else_=jobs.c.request_count)
                connection.execute(
                    jobs.update()
                    .where(jobs.c.job_id == report.job_id)
                    .values(request_count=counted, **reported_values(report))
                )

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
        values = {"results": name, "results_bytes": size, "results_missing": missing, "results_told": told}
        # A job that was never created keeps what was told of that.
        message = {} if job.report is None else {"message": strangers}
        with self._writing() as connection:
            connection.execute(jobs.update().where(jobs.c.key == job.key).values(**values, **message))

    def count_missing(self, job: Job, missing: int) -> None:
        """Record how many rows of a job's kept results have no answer, of results that were kept without that."""
        same = sa.and_(jobs.c.key == job.key, jobs.c.results == job.results)
        with self._writing() as connection:
            connection.execute(jobs.update().where(same).values(results_missing=missing))

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
        try:
            with self._writing() as connection:
                connection.execute(jobs.insert(), row | reported_values(report))
        except sa.exc.IntegrityError:
            self.record(report)
        found = self.job(report.job_id)
        assert found is not None
        return found

    def settle(self) -> None:
        """Bring all that is written into the one file at `path`, so that it can be moved."""
        with self._reading() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    # How it is done

    def _stays_ended(self, connection: sa.Connection, job_id: str, *, anew: bool) -> bool:
        """Tell whether a job stays as it ended where the API says that it has not."""
        columns = (jobs.c.report, jobs.c.results, jobs.c.results_missing)
        row = connection.execute(sa.select(*columns).where(jobs.c.job_id == job_id)).one_or_none()
        report = None if row is None else report_of(row.report)
        if row is None or report is None or not report.ended:
            return False
        return not anew or (row.results is not None and row.results_missing == 0)

    def _retire(self, connection: sa.Connection, submission_id: str) -> None:
        connection.execute(submissions.update().where(submissions.c.submission_id == submission_id).values(live=False))
        its = jobs.update().where(jobs.c.submission_id == submission_id)
        connection.execute(its.where(jobs.c.step.in_([Step.PLANNED, Step.HELD])).values(step=Step.DROPPED))
        connection.execute(its.where(jobs.c.step == Step.SENDING).values(step=Step.GIVEN_UP))

    def _one_submission(self, *conditions: Any) -> Submission | None:
        return next(iter(self._submissions(*conditions)), None)

    def _submissions(self, *conditions: Any) -> list[Submission]:
        statement = (
            sa.select(submissions).where(*conditions).order_by(submissions.c.created_at, submissions.c.submission_id)
        )
        with self._reading() as connection:
            return [submission_of(row) for row in connection.execute(statement).mappings()]

    def _jobs(self, statement: Any) -> list[Job]:
        with self._reading() as connection:
            return [job_of(row) for row in connection.execute(statement).mappings()]

    def _update(self, job: Job, values: dict[str, Any], first: sa.Delete | None = None, where: Any = None) -> bool:
        """Move a job; `first` makes room for it, and comes to nothing where the job is not moved."""
        if values["step"] not in ARROWS[job.step]:
            raise ValueError(f"no job moves from {job.step} to {values['step']}")
        with self._writing() as connection:
            if first is not None:
                connection.execute(first)
            result = connection.execute(
                jobs.update()
                .where(jobs.c.key == job.key, jobs.c.step == job.step, sa.true() if where is None else where)
                .values(**values)
            )
            if not result.rowcount:
                connection.rollback()
        return result.rowcount == 1

    def _open_schema(self) -> None:
        """Make the tables, or bring an older version's up to date; a damaged or a newer ledger is refused."""
        with self._reading() as connection:
            health = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
            if health != "ok":
                raise DamagedLedgerError(_damaged(self.path, " ".join(health.split())))
            if _version(connection) == str(SCHEMA_VERSION):
                return
        with self._writing() as connection:
            written = _version(connection)
            if written is None:
                # One that is made anew has nothing beside it: a full disk or a failed copy leaves an empty file.
                if _holds_more(self._home):
                    raise DamagedLedgerError(_lost(self._home))
                tables.create_all(connection)
                connection.execute(meta.insert(), {"name": "schema_version", "value": str(SCHEMA_VERSION)})
                return
            version = int(written) if written.isascii() and written.isdigit() and len(written) < 10 else 0
            if version < 1:
                raise DamagedLedgerError(_damaged(self.path, f"its version is {written[:50]!r}"))
            if version > SCHEMA_VERSION:
                raise LedgerError(
                    f"The ledger {self.path} was written by a newer duckdb_mistral (its version is {version}, "
                    f"this one knows {SCHEMA_VERSION}). Upgrade duckdb-mistral, or use another home."
                )
            for older in range(version, SCHEMA_VERSION):
                for statement in MIGRATIONS[older]:
                    connection.exec_driver_sql(statement)
            connection.execute(meta.update().where(meta.c.name == "schema_version").values(value=str(SCHEMA_VERSION)))

    def _connect(self) -> sqlite3.Connection:
        """Return a connection; the ledger on a full disk can still be read, by one process at a time."""
        if not self.writable:
            return _connect_to_read(self._home)
        for alone in (False, True):
            # Transactions begin where this module says so.
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                _configure(connection, alone=alone)
            except sqlite3.OperationalError as error:
                connection.close()
                if alone or error.sqlite_errorname not in NO_ROOM:
                    raise
            else:
                break
        return connection

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._told_errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        if not self.writable:
            raise read_only(self._home.path)
        with self._told_errors(), self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            failpoint("before-commit", writes=True)
            connection.commit()
        failpoint("after-commit")

    @contextmanager
    def _told_errors(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.IntegrityError:
            raise
        except OSError as error:
            raise LedgerError(_unusable(self.path, str(error.strerror))) from error
        except sa.exc.DBAPIError as error:
            reason = str(error.orig)
            if "malformed" in reason or "not a database" in reason:
                raise DamagedLedgerError(_damaged(self.path, reason)) from error
            raise LedgerError(_unusable(self.path, reason)) from error


def _part(part: Part) -> sa.Update:
    return parts.update().where(parts.c.submission_id == part.submission_id, parts.c.part == part.part)


def _version(connection: sa.Connection) -> str | None:
    """Return what is written down as the version of the tables, or None where there are none."""
    if not sa.inspect(connection).has_table(meta.name):
        return None
    found = connection.execute(sa.select(meta.c.value).where(meta.c.name == "schema_version")).scalar_one_or_none()
    return None if found is None else str(found)


def _unusable(path: Path, reason: str) -> str:
    if "locked" in reason:
        return (
            f"The ledger {path} has been written by another process for {BUSY_SECONDS} seconds, so nothing is sent. "
            "Try again once that process is done."
        )
    return (
        f"The ledger {path} cannot be used ({reason}), so nothing is sent. Free or mend its disk, and try again: "
        "`duckdb-mistral clean` shows what can be freed under that directory."
    )


def _lost(home: Home) -> str:
    return (
        f"There is no ledger under {home} any more, but files of what it knew, so nothing is sent. "
        "`duckdb-mistral doctor --repair` builds it anew from the workspace's jobs. To begin without it, move "
        "that directory aside."
    )


def _damaged(path: Path, reason: str) -> str:
    return (
        f"The ledger {path} is damaged ({reason}), so nothing is sent. `duckdb-mistral doctor --repair` puts it aside "
        "and builds it anew from the workspace's jobs."
    )


def _connect_to_read(home: Home) -> sqlite3.Connection:
    """Return a connection to a ledger whose directory this process cannot write into."""
    log = home.ledger_log
    # SQLite reads a log only beside its index, which others may hold; without a log, the file is all there is.
    alone = not log.exists() or not log.stat().st_size
    given = f"{home.ledger.absolute().as_uri()}?mode=ro{'&immutable=1' if alone else ''}"
    return sqlite3.connect(given, uri=True, timeout=BUSY_SECONDS, isolation_level=None)


def _configure(connection: sqlite3.Connection, *, alone: bool) -> None:
    """Set up one SQLite connection, which with `alone` needs no room on the disk and lets no other one read."""
    if alone:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
