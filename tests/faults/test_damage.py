"""A damaged, a newer, an older and a lost ledger; results that were cut on disk; a clock that was set."""

from __future__ import annotations

import re
import sqlite3
import time
from typing import TYPE_CHECKING

import duckdb
import pytest
from faults.harness import Story, check_invariants
from support import answered, environment_of, make_staging, rows, run_forked, submitted

from duckdb_mistral.jobs.job import Step, now
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.ledger import Ledger
from duckdb_mistral.state.tables import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut to a half": lambda data: data[: len(data) // 2],
    "bytes flipped in the middle": lambda data: (
        data[:5000] + bytes(255 - byte for byte in data[5000:13000]) + data[13000:]
    ),
    "another file's content": lambda data: b"not a ledger".ljust(len(data)),
}


def damage(home: Path, how: str) -> None:
    """Change the bytes of a ledger that nobody has open."""
    path = home / "ledger.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    path.write_bytes(DAMAGES[how](path.read_bytes()))


@pytest.mark.fault("F34")
@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_ledger(how: str, emulator: Emulator, home: Path) -> None:
    """A damaged ledger is told, nothing is sent, and the repair brings every job back."""
    story = Story(emulator, home)
    (submission_id,) = {row["submission_id"] for row in story.submit()}
    story.wait()
    story.close()
    damage(home, how)
    before = emulator.witness()["requests"]
    story = Story(emulator, home)
    with pytest.raises(duckdb.Error, match=r"is damaged .* `duckdb-mistral doctor --repair`"):
        story.submit()
    assert emulator.witness()["requests"] == before
    child = run_forked(
        "from duckdb_mistral.cli.commands import main; main()", environment_of(emulator, home), "doctor", "--repair"
    )
    assert child.returncode == 0, child.stderr
    assert "Restored from the workspace: 1 submission with 1 job." in child.stdout
    assert {row["submission_id"] for row in story.submit()} == {submission_id}
    story.wait()
    story.results()
    check_invariants(story)
    story.close()


@pytest.mark.fault("F34")
def test_lost_ledger(emulator: Emulator, home: Path) -> None:
    """A ledger that was deleted is built anew from the workspace's jobs, and the same content is not paid again."""
    story = Story(emulator, home, settings={"max_requests_per_job": 4})
    story.submit()
    story.close()
    for path in home.glob("ledger.sqlite*"):
        path.unlink()
    child = run_forked(
        "from duckdb_mistral.cli.commands import main; main()", environment_of(emulator, home), "doctor", "--repair"
    )
    assert "Restored from the workspace: 1 submission with 3 jobs." in child.stdout, child.stderr
    story = Story(emulator, home, settings={"max_requests_per_job": 4})
    assert all(row["reused"] for row in story.submit())
    story.go_on()
    check_invariants(story, jobs=3)
    story.close()


@pytest.mark.fault("F34")
def test_newer_ledger(emulator: Emulator, home: Path) -> None:
    """A ledger of a newer version is refused, and nothing is sent."""
    Ledger(Home(home))
    with sqlite3.connect(home / "ledger.sqlite") as connection:
        connection.execute("UPDATE meta SET value = ? WHERE name = 'schema_version'", [str(SCHEMA_VERSION + 1)])
    connection.close()
    story = Story(emulator, home)
    with pytest.raises(duckdb.Error, match="was written by a newer duckdb_mistral"):
        story.submit()
    assert emulator.witness()["requests"] == {}
    story.close()


@pytest.mark.fault("F34")
def test_cut_results(con: duckdb.DuckDBPyConnection, home: Path) -> None:
    """Kept results that were cut on disk are fetched again."""
    make_staging(con)
    submission_id = submitted(con)
    expected = answered(con, submission_id)
    (kept,) = (home / "results").glob("*.parquet")
    kept.write_bytes(kept.read_bytes()[:-100])
    assert rows(con, f"FROM mistral_batch_results('{submission_id}') ORDER BY custom_id") == expected


@pytest.mark.fault("F32")
def test_results_outlive_the_server(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """Results that were read once are there without the server."""
    make_staging(con)
    submission_id = submitted(con)
    expected = answered(con, submission_id)
    emulator.stop()
    assert rows(con, f"FROM mistral_batch_results('{submission_id}') ORDER BY custom_id") == expected
    assert rows(con, "FROM mistral_batch_results() ORDER BY custom_id") == expected


@pytest.mark.fault("F35")
@pytest.mark.parametrize("days", [-1, 1])
def test_clock_of_this_machine(days: int, emulator: Emulator, home: Path) -> None:
    """A lost create is found and waited for by the server's clock, wherever this machine's stands."""
    story = Story(emulator, home, settings={"reconcile_seconds": 60})
    emulator.faults({"method": "POST", "path": "/v1/batch/jobs", "close": True})
    with pytest.raises(duckdb.Error, match="is not known"):
        story.submit()
    ledger = Ledger(Home(home))
    (job,) = ledger.jobs()
    # As if it had been sent when this machine's clock stood elsewhere.
    assert ledger.move(job, Step.SENDING, sent_at=now() + days * 24 * 3600 * 1_000_000)
    if days > 0:
        with pytest.raises(duckdb.Error, match=r"in (60|59|58|57) seconds or later"):
            story.submit()
        (job,) = ledger.jobs()
        assert job.sent_at is not None
        assert abs(job.sent_at - now()) < 60_000_000
    else:
        story.go_on()
        check_invariants(story)
    story.close()


@pytest.mark.fault("F01")
def test_job_that_is_listed_late(emulator: Emulator, home: Path) -> None:
    """A create whose answer was lost is looked for before it is sent again, however long ago a status gave it up."""
    story = Story(emulator, home, settings={"reconcile_seconds": 0.2})
    hidden = {"method": "GET", "path": "/v1/batch/jobs", "change": {"data": [], "total": 0}, "times": 1000}
    emulator.faults({"method": "POST", "path": "/v1/batch/jobs", "close": True, "after": True}, hidden)
    with pytest.raises(duckdb.Error, match="is not known"):
        story.submit()
    time.sleep(1.5)  # the server's clock has whole seconds
    story.con.execute("FROM mistral_batch_status()").fetchall()
    assert [job.step for job in Ledger(Home(home)).jobs()] == [Step.PLANNED]
    emulator.faults()
    (row,) = story.submit()
    assert row["job_id"] is not None
    assert emulator.witness()["jobs_stored"] == 1
    story.close()


@pytest.mark.fault("F07")
def test_two_jobs_of_one_part(emulator: Emulator, home: Path) -> None:
    """Two jobs that claim the same part are both named, none is chosen, and no third is created."""
    story = Story(emulator, home, settings={"reconcile_seconds": 0})
    emulator.faults(
        {"method": "POST", "path": "/v1/batch/jobs", "close": True, "after": True},
        {"method": "GET", "path": "/v1/batch/jobs", "change": {"data": [], "total": 0}, "skip": 2, "times": 1},
    )
    with pytest.raises(duckdb.Error, match="is not known"):
        story.submit()
    emulator.faults({"method": "GET", "path": "/v1/batch/jobs", "change": {"data": [], "total": 0}, "times": 3})
    story.submit()  # the list hid the first job, and its time had passed
    assert emulator.witness()["jobs_stored"] == 2
    emulator.faults()
    # As if the answer to the second had been lost too.
    with sqlite3.connect(home / "ledger.sqlite") as connection:
        connection.execute("UPDATE jobs SET step = 'sending', job_id = NULL, report = NULL, status = NULL")
    connection.close()
    with pytest.raises(duckdb.Error, match="has more than one job") as raised:
        story.submit()
    listed = [row["job_id"] for row in rows(story.con, "FROM mistral_batch_jobs()")]
    assert all(job_id in str(raised.value) for job_id in listed)
    (read,) = re.findall(r"mistral_batch_results\('[0-9a-f-]+'\)", str(raised.value))
    assert len(rows(story.con, f"FROM {read}")) == 10
    with pytest.raises(duckdb.Error, match="has more than one job"):
        story.wait()
    assert emulator.witness()["jobs_stored"] == 2
    story.close()
