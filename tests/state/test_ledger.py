"""The ledger: what is written is read back, one of two writers wins, and damage is told."""

from __future__ import annotations

import re
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from support import KEY, connect, make_staging, no_room, run_python, submitted

from duckdb_mistral.errors import LedgerError
from duckdb_mistral.jobs.job import Part, Step, Submission
from duckdb_mistral.jobs.report import JobReport, Status
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.ledger import Ledger
from duckdb_mistral.state.tables import SCHEMA_VERSION

if TYPE_CHECKING:
    from duckdb_mistral.emulator import Emulator
    from duckdb_mistral.jobs.job import Job

DATA = Path(__file__).resolve().parents[1] / "data"
JOB_ID = "3f2a9c1e-0000-4000-8000-00000000000a"


@pytest.fixture
def ledger(home: Path) -> Ledger:
    """Return an empty ledger."""
    return Ledger(Home(home))


def submission(**changes: Any) -> Submission:
    """Return a submission of two parts."""
    made = Submission(
        submission_id=str(uuid4()),
        identity="identity",
        server_url="https://example.com",
        account="account",
        endpoint="/v1/chat/completions",
        models=("a", "b"),
        timeout_hours=24,
        metadata=(("team", "é'\""),),
        request_count=30,
        input_bytes=300,
        created_at=1,
    )
    return replace(made, **changes)


def parts_of(made: Submission) -> list[Part]:
    """Return its parts."""
    return [Part(submission_id=made.submission_id, part=number, request_count=15, input_bytes=150) for number in (1, 2)]


def added(ledger: Ledger, **changes: Any) -> Submission:
    """Add a submission and return it."""
    made = submission(**changes)
    assert ledger.add(made, parts_of(made))
    return made


def report(**changes: Any) -> JobReport:
    """Return a job with something in every field."""
    made = JobReport(
        job_id=JOB_ID,
        status="RUNNING",
        endpoint="/v1/chat/completions",
        model="a",
        total_requests=15,
        created_at=1,
        errors=(("bad\u2028", 2),),
        metadata=(("team", "é'\""),),
        input_files=("in",),
        output_file="out",
    )
    return replace(made, **changes)


def test_what_is_added(ledger: Ledger) -> None:
    """A submission, its parts, and a planned job per part and model come back as they were."""
    made = added(ledger, output="STRUCT(a INTEGER)", retry_of="other")
    assert ledger.submission(made.submission_id) == ledger.live_submission("identity") == made
    assert ledger.submissions() == ledger.retries(["other"]) == [made]
    assert ledger.parts(made.submission_id) == parts_of(made)
    jobs = ledger.jobs(made.submission_id)
    assert [(job.part, job.model, job.step, job.request_count, job.input_bytes) for job in jobs] == [
        (part, model, Step.PLANNED, 15, 150) for part in (1, 2) for model in ("a", "b")
    ]
    assert ledger.jobs() == jobs
    assert ledger.jobs_by_key([jobs[2].key, jobs[0].key]) == [jobs[2], jobs[0]]


def test_jobs_of_a_part(ledger: Ledger) -> None:
    """The jobs of one part are those of its models, and no other submission's."""
    made = added(ledger)
    added(ledger, identity="another")
    assert ledger.jobs_of_part(made.submission_id, 2) == [
        job for job in ledger.jobs(made.submission_id) if job.part == 2
    ]


def test_counts_of_many_jobs(ledger: Ledger) -> None:
    """The counts of jobs that are known are found among many that are not."""
    ledger.adopt(report(), "https://example.com")
    others = [str(uuid4()) for _ in range(2_000)]
    assert ledger.request_counts([*others, JOB_ID]) == {JOB_ID: 15}
    assert ledger.request_counts([]) == {}


def test_jobs_by_many_keys(ledger: Ledger) -> None:
    """Jobs are read by more keys than a statement takes values, in the order of the keys."""
    jobs = ledger.jobs(added(ledger).submission_id)
    wanted = [job.key for job in jobs] * 70_000
    assert ledger.jobs_by_key(wanted) == jobs * 70_000


def test_what_is_not_there(ledger: Ledger) -> None:
    """What is not there is None or empty."""
    assert (ledger.submission("x"), ledger.live_submission("x"), ledger.job("x")) == (None, None, None)
    assert (ledger.submissions(), ledger.jobs(), ledger.jobs("x"), ledger.parts("x")) == ([], [], [], [])
    assert ledger.jobs_by_key([]) == []


def test_same_content_twice(ledger: Ledger) -> None:
    """The same content is recorded once while it lives, and nothing of the second stays."""
    first = added(ledger)
    second = submission()
    assert not ledger.add(second, parts_of(second))
    assert ledger.submission(second.submission_id) is None
    assert ledger.parts(second.submission_id) == []
    ledger.retire(first.submission_id)
    assert ledger.live_submission("identity") is None
    assert ledger.add(second, parts_of(second))
    assert ledger.live_submission("identity") == second


def test_writers_at_once(home: Path) -> None:
    """Of many writers of the same content one wins, whoever it is, and a move happens once."""
    Ledger(Home(home))
    barrier = threading.Barrier(6)

    def add(_: int) -> bool:
        made = submission()
        barrier.wait()
        return Ledger(Home(home)).add(made, parts_of(made))

    def move(ledger: Ledger) -> bool:
        barrier.wait()
        return ledger.move(job, Step.SENDING)

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(add, range(6))) == [False] * 5 + [True]
        job = Ledger(Home(home)).jobs()[0]
        assert sorted(pool.map(move, [Ledger(Home(home)) for _ in range(6)])) == [False] * 5 + [True]


def test_new_ledger_that_many_open_at_once(tmp_path: Path) -> None:
    """Many that open a new ledger at the same moment all have it: none is told that another one is writing."""
    with ThreadPoolExecutor(6) as pool:
        for number in range(40):
            home = Home(tmp_path / str(number))
            together = threading.Barrier(6)

            def opened(home: Home = home, together: threading.Barrier = together) -> list[Job]:
                together.wait()
                return Ledger(home).jobs()

            assert [each.result() for each in [pool.submit(opened) for _ in range(6)]] == [[]] * 6


def test_moves(ledger: Ledger) -> None:
    """A move notes why, and the sending when; a stale view moves nothing."""
    job = ledger.jobs(added(ledger).submission_id)[0]
    assert ledger.move(job, Step.HELD, message="no room")
    assert not ledger.move(job, Step.SENDING)
    (held,) = ledger.jobs_by_key([job.key])
    assert (held.step, held.message, held.sent_at) == (Step.HELD, "no room", None)
    assert ledger.move(held, Step.SENDING, sent_at=7)
    (sending,) = ledger.jobs_by_key([job.key])
    assert (sending.step, sending.message, sending.sent_at) == (Step.SENDING, None, 7)
    assert ledger.created(sending, report())
    (created,) = ledger.jobs_by_key([job.key])
    assert (created.step, created.report, created.status) == (Step.CREATED, report(), "RUNNING")
    assert ledger.job(JOB_ID) == created
    assert created.checked_at
    assert not ledger.created(sending, report(job_id="another"))


@pytest.mark.parametrize("step", [Step.PLANNED, Step.HELD, Step.CREATED])
def test_moves_that_there_are_none_of(ledger: Ledger, step: Step) -> None:
    """What is no arrow of Step is a mistake of the program, and changes nothing."""
    job = ledger.jobs(added(ledger).submission_id)[0]
    assert ledger.move(job, Step.DROPPED)
    (dropped,) = ledger.jobs_by_key([job.key])
    with pytest.raises(ValueError, match=f"no job moves from dropped to {step}"):
        ledger.move(dropped, step)
    assert ledger.jobs_by_key([job.key]) == [dropped]


@pytest.mark.parametrize("ended", ["SUCCESS", "FAILED", "TIMEOUT_EXCEEDED", "CANCELLED"])
def test_ended_jobs_do_not_go_on(ledger: Ledger, ended: str) -> None:
    """A late answer about a job that has ended does not open it again."""
    ledger.adopt(report(), "https://example.com")
    ledger.record(report(status=ended, completed_requests=15))
    for late in (Status.RUNNING, Status.UNKNOWN, "SHINY"):
        ledger.record(report(status=late))
        job = ledger.job(JOB_ID)
        assert job is not None
        assert (job.status, job.report and job.report.completed_requests) == (ended, 15)


def test_record_of_an_unknown_job(ledger: Ledger) -> None:
    """What the API says of a job that the ledger does not have is passed over."""
    ledger.record(report())
    assert ledger.job(JOB_ID) is None


def test_adopted_jobs(ledger: Ledger) -> None:
    """A job of another program is kept by its id, once, and is no submission of ours."""
    first = ledger.adopt(report(), "https://example.com")
    again = ledger.adopt(report(status="SUCCESS"), "https://example.com")
    assert again == ledger.job(JOB_ID)
    assert (again.key, again.status, again.submission_id) == (first.key, "SUCCESS", None)
    assert (first.step, first.request_count, first.endpoint) == (Step.CREATED, 15, "/v1/chat/completions")
    assert ledger.jobs() == []


def test_report_that_utf_8_cannot_hold(ledger: Ledger) -> None:
    """Half a surrogate pair, which an older version wrote down as it came, is read back as a question mark."""
    half = "cut \ud83d"
    adopted = ledger.adopt(report(errors=((half, 1),), metadata=((half, half),)), "https://example.com")
    assert adopted.report is not None
    assert (adopted.report.errors, adopted.report.metadata) == ((("cut ?", 1),), (("cut ?", "cut ?"),))


def test_requests_of_an_adopted_job_are_counted_later(ledger: Ledger) -> None:
    """The requests of another program's job are those that the API counts once it has begun; ours are as sent."""
    ledger.adopt(report(total_requests=0), "https://example.com")
    ledger.record(report(total_requests=20))
    ledger.record(report(total_requests=0, status="CANCELLED"))
    (mine, *_) = ledger.jobs(added(ledger).submission_id)
    ledger.move(mine, Step.SENDING)
    (mine,) = ledger.jobs_by_key([mine.key])
    ledger.created(mine, report(job_id="ours", total_requests=0))
    ledger.record(report(job_id="ours", total_requests=7))
    assert [job and job.request_count for job in (ledger.job(JOB_ID), ledger.job("ours"))] == [20, 15]


def test_job_that_was_adopted_before_it_is_recorded(ledger: Ledger) -> None:
    """A job of ours that was looked at by its id before its creation was recorded is one job afterwards, and ours."""
    (job, other, *_) = ledger.jobs(added(ledger).submission_id)
    for one in (job, other):
        assert ledger.move(one, Step.SENDING)
    sending, stale = ledger.jobs_by_key([job.key, other.key])
    assert ledger.move(stale, Step.PLANNED)
    adopted = ledger.adopt(report(), "https://example.com")
    assert not ledger.created(stale, report())
    assert ledger.job(JOB_ID) == adopted
    assert ledger.created(sending, report())
    found = ledger.job(JOB_ID)
    assert found is not None
    assert (found.key, found.submission_id) == (job.key, job.submission_id)
    assert adopted.key not in {one.key for one in ledger.jobs()}


def test_files_results_and_account(ledger: Ledger) -> None:
    """Uploaded files, kept results and a changed account are noted, and can be taken back."""
    made = added(ledger)
    first, second = ledger.parts(made.submission_id)
    ledger.set_file(second, "file")
    assert ledger.parts(made.submission_id) == [first, replace(second, file_id="file")]
    ledger.set_file(second, None)
    assert ledger.parts(made.submission_id) == [first, second]
    job = ledger.jobs()[0]
    ledger.keep_results(job, "name.parquet")
    assert ledger.jobs()[0].results == "name.parquet"
    ledger.keep_results(job, None)
    assert ledger.jobs()[0].results is None
    ledger.set_account(made.submission_id, "other")
    assert ledger.submission(made.submission_id) == replace(made, account="other")


def test_retire_drops_what_was_never_created(ledger: Ledger) -> None:
    """Giving a submission up drops its waiting jobs, and leaves what was sent, or may have been."""
    made = added(ledger)
    first, second, third, _ = ledger.jobs()
    assert ledger.move(first, Step.SENDING)
    assert ledger.created(ledger.jobs_by_key([first.key])[0], report())
    assert ledger.move(second, Step.SENDING)
    assert ledger.move(third, Step.HELD)
    ledger.retire(made.submission_id)
    assert [job.step for job in ledger.jobs()] == [Step.CREATED, Step.GIVEN_UP, Step.DROPPED, Step.DROPPED]


def test_order_of_submissions(ledger: Ledger) -> None:
    """Jobs and submissions come in the order in which they were made."""
    late = added(ledger, identity="late", created_at=2)
    early = added(ledger, identity="early", created_at=1)
    assert ledger.submissions() == [early, late]
    assert list(dict.fromkeys(job.submission_id for job in ledger.jobs())) == [early.submission_id, late.submission_id]


# The file


def test_for_the_owner_alone(home: Path, ledger: Ledger) -> None:
    """The directory and its files are for their owner alone."""
    added(ledger)
    assert home.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in home.iterdir()} == {0o600}


def test_wal(home: Path, ledger: Ledger) -> None:
    """The ledger is kept in WAL, so that readers and a writer do not stop each other."""
    with sqlite3.connect(ledger.path) as plain:
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    plain.close()


def test_newer_version(home: Path, ledger: Ledger) -> None:
    """A ledger of a newer version is refused by both numbers, and not touched."""
    with sqlite3.connect(ledger.path) as plain:
        plain.execute("UPDATE meta SET value = '99' WHERE name = 'schema_version'")
    plain.close()
    with pytest.raises(LedgerError, match=rf"newer .*\(its version is 99, this one knows {SCHEMA_VERSION}\)"):
        Ledger(Home(home))


@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_damaged_file(home: Path, ledger: Ledger, kept: float) -> None:
    """A file that is damaged is told by its path, with what to do."""
    for number in range(50):
        added(ledger, identity=str(number))
    with sqlite3.connect(ledger.path) as plain:
        plain.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    plain.close()
    data = ledger.path.read_bytes()
    start = max(4096, int(len(data) * kept)) if kept else 0
    ledger.path.write_bytes(data[:start] + b"\xa5" * (len(data) - start))
    with pytest.raises(LedgerError, match=re.escape(f"The ledger {ledger.path} is damaged (")):
        Ledger(Home(home)).jobs()


def test_home_that_is_a_file(tmp_path: Path) -> None:
    """A home that cannot be made is told, with what to set."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(LedgerError, match=r"cannot be written.*DUCKDB_MISTRAL_HOME"):
        Ledger(Home(tmp_path / "file"))


def test_full_disk(home: Path, ledger: Ledger) -> None:
    """A ledger on a disk without room is read as before, and what cannot be written is told, with what to do."""
    made = added(ledger)
    for path in home.glob("ledger.sqlite-*"):
        path.unlink()
    with no_room():
        full = Ledger(Home(home))
        assert full.submissions() == [made]
        with pytest.raises(LedgerError, match=r"cannot be used .* so nothing is sent\. .*`duckdb-mistral clean`"):
            added(full, identity="another")
    assert Ledger(Home(home)).submissions() == [made]


def test_second_process(home: Path, ledger: Ledger) -> None:
    """What one process wrote, another reads while the first is still there."""
    made = added(ledger)
    code = (
        "import sys; from pathlib import Path; from duckdb_mistral.state.home import Home; "
        "from duckdb_mistral.state.ledger import Ledger; "
        "print(Ledger(Home(Path(sys.argv[1]))).live_submission('identity').submission_id)"
    )
    child = run_python(code, {}, str(home))
    assert child.stdout.strip() == made.submission_id, child.stderr


def test_key_is_never_written(emulator: Emulator, home: Path) -> None:
    """After a submission the key stands in no file under home."""
    with connect(emulator, home) as con:
        make_staging(con)
        submitted(con)
    files = [path for path in home.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_ledger_of_version_1(tmp_path: Path) -> None:
    """A ledger of version 1 is brought up to date where it lies, and what it knows is read as before."""
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.executescript((DATA / "ledger-1.sql").read_text(encoding="utf-8"))
    connection.close()
    (job,) = Ledger(Home(tmp_path)).jobs()
    assert (job.status, job.request_count, job.results_bytes) == ("SUCCESS", 3, None)
    assert [part.upload_began for part in Ledger(Home(tmp_path)).parts(str(job.submission_id))] == [None]
    fresh = Ledger(Home(tmp_path / "fresh")).path
    assert columns_of(tmp_path / "ledger.sqlite") == columns_of(fresh)
    (again,) = Ledger(Home(tmp_path)).jobs()
    assert again == job


def columns_of(path: Path) -> list[tuple[object, ...]]:
    """Return the columns and indexes of every table of a ledger, and its version."""
    with sqlite3.connect(path) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        found = [tuple(row) for (table,) in tables for row in connection.execute(f"PRAGMA table_info({table})")]
        found += connection.execute("SELECT name FROM sqlite_master WHERE type = 'index' ORDER BY name").fetchall()
        found += connection.execute("SELECT value FROM meta").fetchall()
    connection.close()
    return found


@pytest.mark.parametrize("version", ["abc", "-1", "0", "", "3.5", "²", "9" * 5000])
def test_version_that_is_none(version: str, tmp_path: Path) -> None:
    """A ledger whose version is none is told as damaged or as newer, in a sentence."""
    Ledger(Home(tmp_path))
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute("UPDATE meta SET value = ? WHERE name = 'schema_version'", [version])
    connection.close()
    with pytest.raises(LedgerError, match=r"is damaged \(its version is '"):
        Ledger(Home(tmp_path))


def test_end_that_is_taken_back(ledger: Ledger) -> None:
    """A job leaves its end only where it was asked for anew, and not once its results are whole."""
    added(ledger)
    (job, *_) = ledger.jobs()
    assert ledger.move(job, Step.SENDING)
    assert ledger.created(ledger.jobs_by_key([job.key])[0], report(status="FAILED"))
    runs = report(status="RUNNING")

    def status() -> str:
        return ledger.jobs_by_key([job.key])[0].status

    ledger.record(runs)
    assert status() == "FAILED"
    ledger.record(runs, anew=True)
    assert status() == "RUNNING"
    ledger.record(report(status="EXPIRED", completed_at=1))
    ledger.record(runs)
    assert status() == "EXPIRED"
    ledger.keep_results(ledger.jobs_by_key([job.key])[0], "name.parquet", 1, 2)
    ledger.record(runs, anew=True)
    assert status() == "RUNNING"
    ledger.record(report(status="SUCCESS"))
    ledger.keep_results(ledger.jobs_by_key([job.key])[0], "name.parquet", 1, 0)
    ledger.record(runs, anew=True)
    assert status() == "SUCCESS"
