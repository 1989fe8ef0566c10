"""Writing down many reports: few statements, none where nothing is new, and nothing lost between processes."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from submissions import filled

from duckdb_mistral.state import reports as written_reports
from duckdb_mistral.state.ledger import OtherJobError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from duckdb_mistral.state.ledger import Ledger

#: More than one statement takes values.
MANY = 2_000


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


def test_statements_for_many_reports(ledger: Ledger) -> None:
    """Many reports are one UPDATE, and reports that tell nothing new are none."""
    told = filled(ledger, MANY)
    ended = [replace(report, status="SUCCESS", completed_requests=1) for report in told]
    with counted() as counts:
        ledger.record(*ended)
    begun = 0 if ledger.shared else 1  # PostgreSQL's driver begins a transaction by itself
    assert (counts["UPDATE"], counts["BEGIN"], counts["SELECT"]) == (1, begun, 3)
    assert {(job.status, job.request_count) for job in ledger.jobs()} == {("SUCCESS", 1)}
    with counted() as counts:
        ledger.record(*ended)
        ledger.record(*told)  # too late
    assert set(counts) == {"SELECT"}
    assert {job.status for job in ledger.jobs()} == {"SUCCESS"}


def test_time_of_a_report_that_tells_nothing_new(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a check is written once in a while, in one statement, and each time where an end is asked anew."""
    told = filled(ledger, 3)
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


def test_report_whose_tags_were_read(ledger: Ledger) -> None:
    """What was worked out of a report is not written down with it: it is the same report."""
    (told, *_) = filled(ledger, 1)
    assert told.tags.submission_id is None
    with counted() as counts:
        ledger.record(told)
    assert set(counts) == {"SELECT"}
    ledger.record(replace(told, status="SUCCESS"))
    assert [job.status for job in ledger.jobs()] == ["SUCCESS"]


def test_reports_of_one_job(ledger: Ledger) -> None:
    """Of two reports of one job that come together, the one that tells its end counts, whatever their order."""
    (told, *_) = filled(ledger, 2)
    ended = replace(told, status="FAILED")
    for both in ((ended, told), (told, ended)):
        ledger.record(*both)
        assert [job.status for job in ledger.jobs()] == ["FAILED", "RUNNING"]


def test_writers_of_the_same_reports(ledger: Ledger, opened: Callable[[], Ledger]) -> None:
    """Of processes that write other reports of the same jobs, in any order, none loses an end that one has told."""
    told = filled(ledger, 40)
    ended = [replace(report, status="SUCCESS") for report in told]
    barrier = threading.Barrier(6)

    def record(number: int) -> None:
        mine = opened()
        barrier.wait()
        for start in range(0, 40, 8):
            some = slice(start, start + 8)
            mine.record(
                *(ended if number % 2 else [replace(one, completed_requests=number) for one in told])[some][::-1]
            )

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(record, range(6)))
    assert {job.status for job in ledger.jobs()} == {"SUCCESS"}


def test_job_that_was_written_meanwhile(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process writes between the look and the write is looked at again."""
    (told, *_) = filled(ledger, 1)
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


def test_job_of_another_part(ledger: Ledger) -> None:
    """A create whose answer names the job of another part is told, and nothing is written."""
    (first, _) = filled(ledger, 2)
    (_, other) = ledger.jobs()
    with ledger.database.writing() as connection:
        connection.exec_driver_sql(f"UPDATE jobs SET step = 'sending', job_id = NULL WHERE key = {other.key}")
    (sending,) = ledger.jobs_by_key([other.key])
    with pytest.raises(OtherJobError, match=f"Job {first.job_id} is that of another part"):
        ledger.created(sending, first)
    assert ledger.jobs_by_key([other.key]) == [sending]
