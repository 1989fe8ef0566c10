"""Writing down many reports: few statements, none where nothing is new, and nothing lost between processes."""

from __future__ import annotations

import shutil
import textwrap
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from support import run_python

from duckdb_mistral.jobs.job import Part, Step, Submission
from duckdb_mistral.jobs.report import JobReport
from duckdb_mistral.state import reports as written_reports
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.ledger import Ledger, OtherJobError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: More than one statement takes values.
MANY = 2_000


def filled(home: Path, count: int) -> tuple[Ledger, list[JobReport]]:
    """Return a ledger with so many jobs that run, and what the API told of them."""
    ledger = Ledger(Home(home))
    made = Submission(
        submission_id="of-many",
        identity="identity",
        server_url="https://example.com",
        account="account",
        endpoint="/v1/chat/completions",
        models=("a",),
        timeout_hours=24,
        metadata=(),
        request_count=count,
        input_bytes=count,
        created_at=1,
    )
    parts = [Part(submission_id="of-many", part=number + 1, request_count=1, input_bytes=1) for number in range(count)]
    assert ledger.add(made, parts)
    found = [JobReport(job_id=f"job-{number}", status="RUNNING", total_requests=1) for number in range(count)]
    with ledger.kept_open():
        for job, report in zip(ledger.jobs(), found, strict=True):
            assert ledger.move(job, Step.SENDING)
            assert ledger.created(job.evolve(step=Step.SENDING), report)
    return ledger, found


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the statements of all ledgers by their first word."""
    counts: Counter[str] = Counter()

    def count(_: Any, __: Any, statement: str, *___: Any) -> None:
        counts[statement.split()[0]] += 1

    sa.event.listen(Engine, "before_cursor_execute", count)
    try:
        yield counts
    finally:
        sa.event.remove(Engine, "before_cursor_execute", count)


def test_statements_for_many_reports(home: Path) -> None:
    """Many reports are one UPDATE, and reports that tell nothing new are none."""
    ledger, told = filled(home, MANY)
    ended = [replace(report, status="SUCCESS", completed_requests=1) for report in told]
    with counted() as counts:
        ledger.record(*ended)
    assert (counts["UPDATE"], counts["BEGIN"], counts["SELECT"]) == (1, 1, 3)
    assert {(job.status, job.request_count) for job in ledger.jobs()} == {("SUCCESS", 1)}
    with counted() as counts:
        ledger.record(*ended)
        ledger.record(*told)  # too late
    assert set(counts) == {"SELECT"}
    assert {job.status for job in ledger.jobs()} == {"SUCCESS"}


def test_time_of_a_report_that_tells_nothing_new(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a check is written once in a while, in one statement, and each time where an end is asked anew."""
    ledger, told = filled(home, 3)
    before = [job.checked_at for job in ledger.jobs()]
    ledger.record(*told)
    assert [job.checked_at for job in ledger.jobs()] == before
    monkeypatch.setattr(written_reports, "CHECKED_EVERY", 0)
    with counted() as counts:
        ledger.record(*told)
    assert counts["UPDATE"] == 1
    after = [job.checked_at for job in ledger.jobs()]
    assert all(new > old for new, old in zip(after, before, strict=True) if new and old)
    monkeypatch.undo()
    ledger.record(*told, anew=True)
    assert all(
        new > old for new, old in zip((job.checked_at for job in ledger.jobs()), after, strict=True) if new and old
    )


def test_report_whose_tags_were_read(home: Path) -> None:
    """What was worked out of a report is not written down with it: it is the same report."""
    ledger, (told, *_) = filled(home, 1)
    assert told.tags.submission_id is None
    with counted() as counts:
        ledger.record(told)
    assert set(counts) == {"SELECT"}
    ledger.record(replace(told, status="SUCCESS"))
    assert [job.status for job in ledger.jobs()] == ["SUCCESS"]


def test_reports_of_one_job(home: Path) -> None:
    """Of two reports of one job that come together, the one that tells its end counts, whatever their order."""
    ledger, (told, *_) = filled(home, 2)
    ended = replace(told, status="FAILED")
    for both in ((ended, told), (told, ended)):
        ledger.record(*both)
        assert [job.status for job in ledger.jobs()] == ["FAILED", "RUNNING"]


def test_writers_of_the_same_reports(home: Path) -> None:
    """Of processes that write other reports of the same jobs, in any order, none loses an end that one has told."""
    ledger, told = filled(home, 40)
    ended = [replace(report, status="SUCCESS") for report in told]
    barrier = threading.Barrier(6)

    def record(number: int) -> None:
        mine = Ledger(Home(home))
        barrier.wait()
        for start in range(0, 40, 8):
            some = slice(start, start + 8)
            mine.record(
                *(ended if number % 2 else [replace(one, completed_requests=number) for one in told])[some][::-1]
            )

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(record, range(6)))
    assert {job.status for job in ledger.jobs()} == {"SUCCESS"}


def test_job_that_was_written_meanwhile(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process writes between the look and the write is looked at again."""
    ledger, (told, *_) = filled(home, 1)
    real = written_reports._known
    looks = []

    def known(*given: Any) -> Any:
        rows = real(*given)
        looks.append(1)
        if len(looks) == 1:
            written_reports.record(ledger.database, [replace(told, status="CANCELLED")], anew=False)
        return rows

    monkeypatch.setattr(written_reports, "_known", known)
    ledger.record(replace(told, completed_requests=1))
    assert [job.status for job in ledger.jobs()] == ["CANCELLED"]
    assert len(looks) == 3


def test_job_of_another_part(home: Path) -> None:
    """A create whose answer names the job of another part is told, and nothing is written."""
    ledger, (first, _) = filled(home, 2)
    (_, other) = ledger.jobs()
    with ledger.database.writing() as connection:
        connection.exec_driver_sql(f"UPDATE jobs SET step = 'sending', job_id = NULL WHERE key = {other.key}")
    (sending,) = ledger.jobs_by_key([other.key])
    with pytest.raises(OtherJobError, match=f"Job {first.job_id} is that of another part"):
        ledger.created(sending, first)
    assert ledger.jobs_by_key([other.key]) == [sending]


def test_one_file_between_statements(home: Path) -> None:
    """While it is kept open, what is written lies in the log; afterwards all of it is in the one file."""
    ledger, (told, *_) = filled(home, 1)
    with ledger.kept_open(), ledger.kept_open():
        ledger.record(replace(told, status="SUCCESS"))
        assert (home / "ledger.sqlite-wal").exists()
    assert [path.name for path in home.iterdir()] == ["ledger.sqlite"]
    assert [job.status for job in Ledger(Home(home)).jobs()] == ["SUCCESS"]


def test_other_file_while_it_is_kept_open(home: Path) -> None:
    """If a backup is put in the ledger's place meanwhile, it is read and written, and not the file that is gone."""
    ledger, _ = filled(home, 1)
    shutil.copytree(home, home.with_name("backup"))
    with ledger.kept_open():
        ledger.set_account("of-many", "before")
        (home / "ledger.sqlite").replace(home.with_name("aside"))
        for path in home.glob("ledger.sqlite-*"):
            path.unlink()
        shutil.copy(home.with_name("backup") / "ledger.sqlite", home)
        assert [submission.account for submission in ledger.submissions()] != ["before"]
        ledger.set_account("of-many", "after")
    assert [submission.account for submission in Ledger(Home(home)).submissions()] == ["after"]


def test_fork_while_it_is_kept_open(home: Path) -> None:
    """What is idle is closed before a fork, and what is written afterwards is there for both."""
    filled(home, 1)
    code = """
    import os, sys
    from pathlib import Path
    from duckdb_mistral.state.home import Home
    from duckdb_mistral.state.ledger import Ledger

    home = Path(sys.argv[1])
    ledger = Ledger(Home(home))
    with ledger.kept_open():
        (job,) = ledger.jobs()
        child = os.fork()
        if not child:
            Ledger(Home(home)).set_account("of-many", "the child's")
            os._exit(ledger.database._engine.pool.checkedin())
        print(os.waitpid(child, 0)[1], ledger.submissions()[0].account)
        ledger.set_account("of-many", "the parent's")
    print(ledger.submissions()[0].account)
    """
    child = run_python(textwrap.dedent(code), {}, str(home))
    assert (child.stdout, child.stderr) == ("0 the child's\nthe parent's\n", "")
