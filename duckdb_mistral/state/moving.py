"""Moving the rows of one ledger into another: what is new there is added, and what is known there is only completed.

All of it is one transaction of the ledger that they go to, and does the same when it is done again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from duckdb_mistral.errors import LedgerError
from duckdb_mistral.jobs.job import Step
from duckdb_mistral.jobs.report import ENDED
from duckdb_mistral.state.stamp import check_settled, unstamp
from duckdb_mistral.state.steps import retire
from duckdb_mistral.state.tables import jobs, parts, submissions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from duckdb_mistral.state.database import Database

Row = dict[str, Any]

#: A transaction is tried again so often that another process was quicker with a row of.
RACES = 10
#: Rows that one statement writes.
MOST_ROWS = 5_000
UNSENT = (Step.PLANNED, Step.HELD)
#: What a job that is completed gets from the other ledger; it stays the job of its submission, part and model.
PROGRESS = (
    *("step", "sent_at", "sent_here_at", "least_wait", "checked_at", "message", "job_id", "status", "report"),
    *("results", "results_bytes", "results_missing", "results_told"),
)
#: Times by one ledger's clock, and sizes that a team's ledger may leave out.
UNCOMPARED = ("checked_at", "sent_here_at", "results_bytes")
#: What has to be still so of a job that is completed.
READ = ("step", "status", "results")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """All rows of a ledger, as of one moment."""

    submissions: list[Row]
    parts: list[Row]
    jobs: list[Row]


@dataclass(frozen=True, kw_only=True)
class Merged:
    """How many rows went from one ledger into another."""

    submissions: int
    jobs: int
    known_submissions: int
    #: Jobs that were known there, and of which more was known here.
    completed_jobs: int


def read_rows(database: Database) -> Rows:
    """Return all rows of a ledger; raises LedgerError where a job may be on its way to the API."""

    def read(connection: sa.Connection) -> Rows:
        if database.shared:  # a file has one writer, who is here
            connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        check_settled(connection, database.place)
        found = [
            [dict(row._mapping) for row in connection.execute(sa.select(table).order_by(*table.primary_key))]
            for table in (submissions, parts, jobs)
        ]
        return Rows(submissions=found[0], parts=found[1], jobs=found[2])

    return database.transact(read)


def merge(database: Database, rows: Rows, *, wins: bool, sized: bool = True) -> Merged:
    """Bring rows of another ledger into `database`; an own ledger that is stamped has no stamp after that.

    Where a job is known in both, the one counts of which more is known: with `wins`, theirs where that is neither.
    The live submission of a content stays live here; with `wins`, theirs takes its place. What of a submission was
    not sent and does not stand for its content is dropped. Without `sized`, the sizes of results are left out: each
    home has files of its own. Raises LedgerError.
    """
    now = database.now()

    def work(connection: sa.Connection) -> Merged:
        if not database.shared:
            check_settled(connection, database.place)
            unstamp(connection)
        return _Merge(connection, rows, now, wins=wins, sized=sized).run()

    for left in range(RACES - 1, -1, -1):
        try:
            return database.transact(work)
        except sa.exc.IntegrityError:
            if not left:
                break
    raise LedgerError(
        f"Other processes keep changing the same rows of the ledger {database.place}, so none was moved. Try again."
    )


def record_sizes(database: Database, sizes: Mapping[int, tuple[str, int]]) -> None:
    """Note the names and bytes of results by the keys of their jobs, where none was recorded."""
    if not sizes:
        return
    named = sa.and_(
        jobs.c.key == sa.bindparam("its_key"),
        jobs.c.results == sa.bindparam("its_name"),
        jobs.c.results_bytes.is_(None),
    )
    values = [{"its_key": key, "its_name": name, "results_bytes": size} for key, (name, size) in sizes.items()]
    database.transact(lambda connection: _many(connection, jobs.update().where(named), values))


class _Merge:
    """One try to bring rows into a ledger."""

    def __init__(self, connection: sa.Connection, rows: Rows, now: int, *, wins: bool, sized: bool) -> None:
        self._connection = connection
        self._rows = rows
        self._now = now
        self._wins = wins
        self._sized = sized
        self._known = {row["submission_id"]: row for row in self._read(submissions)}
        #: What two rows of a job are compared by; reports are long, and a team's ledger may be far away.
        self._compared = [name for name in PROGRESS if name not in UNCOMPARED and (wins or name != "report")]
        names = dict.fromkeys(("key", "submission_id", "part", "model", "results_bytes", *self._compared))
        found = [dict(row._mapping) for row in connection.execute(sa.select(*(jobs.c[name] for name in names)))]
        self._by_place = {_place(row): row for row in found if row["submission_id"] is not None}
        self._by_job_id = {row["job_id"]: row for row in found if row["job_id"] is not None}
        self._retired: list[str] = []
        self._live = self._live_after()

    def run(self) -> Merged:
        """Write the rows, and return how many."""
        added, completed, replaced = self._judged()
        for row in replaced:  # another program's job until now
            self._connection.execute(jobs.delete().where(jobs.c.key == row["key"], jobs.c.submission_id.is_(None)))
        self._complete(completed)
        for submission_id in self._retired:
            retire(self._connection, submission_id)
        new = [row for row in self._rows.submissions if row["submission_id"] not in self._known]
        _many(self._connection, submissions.insert(), [row | {"live": self._is_live(row)} for row in new])
        self._write_parts()
        _many(self._connection, jobs.insert(), added)
        self._enliven()
        return Merged(
            submissions=len(new),
            jobs=len(added),
            known_submissions=len(self._rows.submissions) - len(new),
            completed_jobs=len(completed),
        )

    # Which submission stands for a content

    def _live_after(self) -> dict[str, str]:
        """Return the submission that stands for each content when this is done; note those that do not any more."""
        theirs = {row["submission_id"]: row for row in self._rows.submissions}
        wanted = {row["identity"]: row["submission_id"] for row in theirs.values() if row["live"]}
        sent = {row["submission_id"] for row in self._by_place.values() if row["step"] not in (*UNSENT, Step.DROPPED)}
        live = {}
        for row in self._known.values():
            one, other = row["submission_id"], wanted.get(row["identity"])
            if not row["live"]:
                continue
            known = theirs.get(one)
            gave_way = known is not None and not known["live"]
            if (gave_way and one not in sent) or (self._wins and (gave_way or other not in (None, one))):
                self._retired.append(one)
            else:
                live[row["identity"]] = one
        return wanted | live

    def _is_live(self, row: Row) -> bool:
        return bool(self._live.get(row["identity"]) == row["submission_id"])

    def _enliven(self) -> None:
        for row in self._known.values():
            if self._is_live(row) and not row["live"]:
                its = submissions.c.submission_id == row["submission_id"]
                self._connection.execute(submissions.update().where(its).values(live=True))

    # Jobs

    def _judged(self) -> tuple[list[Row], list[tuple[Row, Row]], list[Row]]:
        """Return the jobs to add, those to complete with what is known here, and those that make room for one."""
        added, completed, replaced = [], [], []
        identities = {row["submission_id"]: row for row in self._rows.submissions}
        for row in map(self._fitted, self._rows.jobs):
            same = self._by_job_id.get(row["job_id"])
            known = same if row["submission_id"] is None else self._by_place.get(_place(row))
            clashes = same is not None and same is not known and same["submission_id"] is not None
            if known is not None:
                if clashes or not self._is_better(row, known):
                    continue
                completed.append((row, known))
            elif clashes:
                added.append(_without_job(row, same))
            else:
                submission = identities.get(row["submission_id"])
                added.append(row if submission is None or self._is_live(submission) else _dropped(row))
            if same is not None and same is not known and not clashes:
                replaced.append(same)
        return added, completed, replaced

    def _fitted(self, row: Row) -> Row:
        """Return a job without what is of its own ledger: its key, the size of a file, a time by that clock."""
        row = {name: value for name, value in row.items() if name != "key"}
        if not self._sized and row["step"] != Step.ANSWERED:
            row["results_bytes"] = None
        if row["step"] in UNSENT and row["sent_here_at"] is not None:
            row["sent_here_at"] = self._now  # a create that was refused is looked for anew
        return row

    def _is_better(self, row: Row, known: Row) -> bool:
        if _is_ahead(row, known):
            return True
        differs = any(row[name] != known[name] for name in self._compared)
        other_file = row["results_bytes"] not in (None, known["results_bytes"])
        return self._wins and (differs or other_file) and not _is_ahead(known, row)

    def _complete(self, completed: Iterable[tuple[Row, Row]]) -> None:
        as_read = (
            jobs.c[name].is_not_distinct_from(sa.bindparam(f"read_{name}", type_=jobs.c[name].type)) for name in READ
        )
        statement = jobs.update().where(jobs.c.key == sa.bindparam("its_key"), *as_read)
        values = [
            {"its_key": known["key"]}
            | {f"read_{name}": known[name] for name in READ}
            | {name: row[name] for name in PROGRESS}
            for row, known in completed
        ]
        _many(self._connection, statement, values)

    # Parts

    def _write_parts(self) -> None:
        """Add the parts that are new, and what is known here alone of the files that they were uploaded as."""
        known = {(row["submission_id"], row["part"]): row for row in self._read(parts)}
        added, told = [], []
        for row in self._rows.parts:
            there = known.get((row["submission_id"], row["part"]))
            if there is None:
                added.append(row)
            elif row["file_id"] is not None and there["file_id"] is None:
                its = {"its_id": row["submission_id"], "its_part": row["part"]}
                told.append(its | {"file_id": row["file_id"], "upload_began": row["upload_began"]})
        one = sa.and_(
            parts.c.submission_id == sa.bindparam("its_id"),
            parts.c.part == sa.bindparam("its_part"),
            parts.c.file_id.is_(None),
        )
        _many(self._connection, parts.insert(), added)
        _many(self._connection, parts.update().where(one), told)

    def _read(self, table: sa.Table) -> Iterator[Row]:
        for row in self._connection.execute(sa.select(table)):
            yield dict(row._mapping)


def _place(row: Row) -> tuple[str | None, int, str]:
    return row["submission_id"], row["part"], row["model"]


def _is_ahead(row: Row, known: Row) -> bool:
    """Tell whether a row tells of a job what another row of it does not know."""
    if known["step"] in UNSENT:
        return row["step"] in (Step.CREATED, Step.DROPPED)
    if known["step"] == Step.DROPPED:
        return bool(row["step"] == Step.CREATED)
    if row["job_id"] is None or row["job_id"] != known["job_id"]:
        return False
    has_ended = row["status"] in ENDED and known["status"] not in ENDED
    return has_ended or (row["results"] is not None and known["results"] is None)


def _without_job(row: Row, other: Any) -> Row:
    """Return a job whose id is that of another part in the ledger that it goes to."""
    told = f"Job {row['job_id']} counts as that of part {other['part']} of submission {other['submission_id']}."
    return row | dict.fromkeys(PROGRESS) | {"step": Step.DROPPED, "message": told}


def _dropped(row: Row) -> Row:
    """Return a job of a submission that does not stand for its content: nothing of it is sent any more."""
    return row | {"step": Step.DROPPED} if row["step"] in UNSENT else row


def _many(connection: sa.Connection, statement: Any, rows: list[Row]) -> None:
    """Run a statement with the values of many rows, in few round trips."""
    for start in range(0, len(rows), MOST_ROWS):
        connection.execute(statement, rows[start : start + MOST_ROWS])
