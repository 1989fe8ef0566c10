"""Contenders: what the ledger does for many jobs, beside plain SQLite that does as much; and its statements per job."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from benchmarks.clock import Clock
from benchmarks.shared import KEY, import_the_rest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from duckdb_mistral.jobs.job import Submission
    from duckdb_mistral.jobs.report import JobReport
    from duckdb_mistral.state.ledger import Ledger

#: Parts of one submission.
PARTS = 1_000
#: Nobody answers there, and nobody is asked.
NOWHERE = "http://127.0.0.1:9"


def ledger_reports(work: Path, given: dict[str, Any]) -> Clock:
    """Write down what the API says of many jobs, once it is new and once it is not."""
    ledger, reports = _running(work / "home", given["jobs"])
    ended = [replace(report, status="SUCCESS", completed_requests=1) for report in reports]
    clock = Clock()
    with clock.step("new"), counted() as counts:
        ledger.record(*ended)
    clock.figures["statements"] = counts.total()
    with clock.step("known"), counted() as counts:
        ledger.record(*ended)
    clock.figures["statements, known"] = counts.total()
    clock.figures["writes, known"] = counts["UPDATE"]
    return clock


def sqlite_reports(work: Path, given: dict[str, Any]) -> Clock:
    """Write as much with SQLite alone: one transaction, one UPDATE of many rows, nothing compared."""
    from duckdb_mistral.state.records import written_report

    ledger, reports = _running(work / "home", given["jobs"])
    rows = [("SUCCESS", written_report(replace(one, status="SUCCESS")), one.job_id) for one in reports]
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        clock = Clock()
        with clock.step("new"):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("UPDATE jobs SET status = ?, report = ? WHERE job_id = ?", rows)
            connection.execute("COMMIT")
    return clock


def status_many(_: Path, given: dict[str, Any]) -> Clock:
    """mistral_batch_status of a ledger full of jobs that have ended."""
    import duckdb_mistral

    settings = {"api_key": KEY, "home": given["home"], "server_url": NOWHERE}
    with duckdb_mistral.connect(settings=settings) as connection:
        connection.execute("FROM mistral_batch_status() LIMIT 0").fetchall()  # as a second call has it
        clock = Clock()
        with clock.step("status"):
            found = connection.execute("SELECT count(*), count(job_id) FROM mistral_batch_status()").fetchone()
    assert found == (given["jobs"], given["jobs"])
    return clock


def sqlite_status(_: Path, given: dict[str, Any]) -> Clock:
    """Read the same rows with SQLite alone, as they lie there."""
    path = Path(given["home"]) / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        clock = Clock()
        with clock.step("status"):
            rows = connection.execute("SELECT * FROM jobs").fetchall()
    assert len(rows) == given["jobs"]
    return clock


def statements(work: Path, given: dict[str, Any]) -> Clock:
    """Submit, ask for and read a submission of many parts; count the ledger's statements of each."""
    import duckdb_mistral

    import_the_rest()
    count = given["jobs"]
    settings = {"api_key": KEY, "home": work / "home", "server_url": given["url"], "poll_seconds": 0.5}
    settings |= {"max_requests_per_job": 1, "max_pending_requests": 100_000_000}
    source = f"SELECT range AS custom_id, 'say ' || range AS prompt FROM range({count})"
    with duckdb_mistral.connect(settings=settings) as connection:
        clock = Clock()
        with clock.step("submit"), counted() as counts:
            jobs = connection.execute("FROM mistral_batch_submit($source)", {"source": source}).fetchall()
        clock.figures["submit"] = counts.total()
        connection.execute("FROM mistral_batch_wait($id)", {"id": jobs[0][0]}).fetchall()
        with clock.step("results"), counted() as counts:
            read = f"SELECT count(*) FROM mistral_batch_results('{jobs[0][0]}') WHERE outcome = 'ok'"
            assert connection.execute(read).fetchone() == (count,)
        clock.figures["results"] = counts.total()
    return clock


def fill(home: Path, jobs: int) -> None:
    """Make a ledger of so many jobs that have ended, in submissions of a thousand parts each."""
    for _ in range(jobs // PARTS):
        _running(home, PARTS, status="SUCCESS")


def _running(home: Path, count: int, *, status: str = "RUNNING") -> tuple[Ledger, list[JobReport]]:
    """Add a submission of so many parts, whose jobs are as `status` says; return what was told of them."""
    from duckdb_mistral.jobs.job import Part
    from duckdb_mistral.state.home import Home
    from duckdb_mistral.state.ledger import Ledger
    from duckdb_mistral.state.records import written_report

    ledger = Ledger(Home(home))
    made = submission_of_parts(count, NOWHERE)
    its = made.submission_id
    ledger.add(made, [Part(submission_id=its, part=part + 1, request_count=1, input_bytes=1) for part in range(count)])
    reports = [report_of_running(str(uuid4()), status) for _ in range(count)]
    rows = zip(reports, ledger.jobs(its), strict=True)
    with closing(sqlite3.connect(ledger.path)) as connection, connection:
        connection.executemany(
            "UPDATE jobs SET step = 'created', checked_at = 0, job_id = ?, status = ?, report = ? WHERE key = ?",
            [(one.job_id, one.status, written_report(one), job.key) for one, job in rows],
        )
    return ledger, reports


def submission_of_parts(count: int, server_url: str) -> Submission:
    """Return a new submission of so many parts of one request."""
    from duckdb_mistral.jobs.job import Submission, now

    return Submission(
        submission_id=str(uuid4()),
        identity=str(uuid4()),
        server_url=server_url,
        account="0",
        endpoint="/v1/chat/completions",
        models=("mistral-small-latest",),
        timeout_hours=24,
        metadata=(),
        request_count=count,
        input_bytes=count,
        created_at=now(),
    )


def report_of_running(job_id: str, status: str) -> JobReport:
    """Return what the API tells of a job of one request, with the metadata that each job has."""
    from duckdb_mistral.jobs.report import JobReport

    return JobReport(
        job_id=job_id,
        status=status,
        endpoint="/v1/chat/completions",
        model="mistral-small-latest",
        total_requests=1,
        created_at=1_700_000_000_000_000,
        metadata=(("duckdb_mistral_submission", str(uuid4())), ("duckdb_mistral_identity", "0" * 64)),
        input_files=(str(uuid4()),),
    )


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the ledger's statements by their first word; one that is run for many rows is one."""
    counts: Counter[str] = Counter()

    def count(_: Any, __: Any, statement: str, *___: Any) -> None:
        counts[statement.split()[0]] += 1

    sa.event.listen(Engine, "before_cursor_execute", count)
    try:
        yield counts
    finally:
        sa.event.remove(Engine, "before_cursor_execute", count)
