"""What comes late: files, counts and another status of jobs that had been told as ended."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import duckdb
import pytest
from support import asked_for_money, connect, make_staging, rows, submitted, wait_at_the_server

from duckdb_mistral.batches.again import LOOKS
from duckdb_mistral.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

JOB = {"method": "GET", "path": "/v1/batch/jobs/[^/]+", "times": 1000}
CONTENT = {"method": "GET", "path": "/v1/files/[^/]+/content", "times": 1000}
NOTHING: dict[str, Any] = {"completed_requests": 0, "succeeded_requests": 0, "output_file": None, "error_file": None}
FIRST = {
    "custom_id": "0",
    "response": {"status_code": 200, "body": {"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}},
}
#: A file in which one row has its answer so far.
ONE_ROW = CONTENT | {
    "status": 200,
    "headers": {"content-type": "application/octet-stream"},
    "body": json.dumps(FIRST) + "\n",
}
#: What is told too early, by what a reader of it then finds.
EARLY: dict[str, list[dict[str, Any]]] = {
    "CANCELLED": [JOB | {"change": NOTHING | {"status": "CANCELLED"}}],
    "FAILED": [JOB | {"change": NOTHING | {"status": "FAILED"}}],
    "TIMEOUT_EXCEEDED": [JOB | {"change": NOTHING | {"status": "TIMEOUT_EXCEEDED"}}],
    "a new word": [JOB | {"change": NOTHING | {"status": "EXPIRED"}}],
    "SUCCESS, whose counts grow": [JOB | {"change": {"completed_requests": 1, "succeeded_requests": 1}}, ONE_ROW],
}
#: The words after which the same statement is submitted anew.
BAD = ("CANCELLED", "FAILED", "TIMEOUT_EXCEEDED")
LIST = {"method": "GET", "path": "/v1/batch/jobs", "times": 1000}
#: A page of a hundred other jobs, as of a server that lists no more.
OTHERS = {"status": 200, "body": json.dumps({"data": [{"id": str(uuid4()), "status": "SUCCESS"} for _ in range(100)]})}
NO_JOBS = {"status": 200, "body": '{"data": [], "total": 0}'}
#: The server's clock as if nothing that was sent could be on its way any more.
HOURS_LATER = {"ahead": 7200}
RUNS_AGAIN = JOB | {"change": NOTHING | {"status": "RUNNING", "completed_at": None}}


def told_early(con: duckdb.DuckDBPyConnection, emulator: Emulator, early: str, *, read: bool) -> str:
    """Submit three rows whose end the API tells too early, and read them if `read`; return the id once all is there."""
    make_staging(con)
    submission_id = submitted(con)
    wait_at_the_server(con)
    emulator.faults(*EARLY[early])
    con.execute("FROM mistral_batch_wait($id, timeout_seconds := 30)", {"id": submission_id})
    if read:
        missing = [row for row in results(con, submission_id) if row["outcome"] == "missing"]
        assert len(missing) == (2 if early.startswith("SUCCESS") else 3)
    emulator.faults()
    return submission_id


def results(con: duckdb.DuckDBPyConnection, submission_id: str, arguments: str = "") -> list[dict[str, Any]]:
    """Return the results of a submission."""
    return rows(con, f"FROM mistral_batch_results('{submission_id}'{arguments}) ORDER BY custom_id")


def outcomes(con: duckdb.DuckDBPyConnection, submission_id: str, arguments: str = "") -> list[str]:
    """Return the outcomes of a submission."""
    return [row["outcome"] for row in results(con, submission_id, arguments)]


@pytest.mark.fault("F43", "F44")
@pytest.mark.parametrize("early", EARLY)
def test_read_again(early: str, con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """Rows that were read as missing come once they are there, and are kept then."""
    submission_id = told_early(con, emulator, early, read=True)
    assert outcomes(con, submission_id) == ["ok"] * 3
    assert rows(con, "SELECT DISTINCT outcome FROM mistral_batch_results()") == [{"outcome": "ok"}]
    emulator.stop()
    assert outcomes(con, submission_id) == ["ok"] * 3


@pytest.mark.fault("F43", "F44")
@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("early", EARLY)
def test_retry_pays_for_nothing_that_came_late(
    early: str, read: bool, con: duckdb.DuckDBPyConnection, emulator: Emulator
) -> None:
    """A retry asks for the job again, and sends nothing that has been answered since."""
    submission_id = told_early(con, emulator, early, read=read)
    before = asked_for_money(emulator)
    assert rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id}) == []
    assert asked_for_money(emulator) == before
    assert outcomes(con, submission_id) == ["ok"] * 3


@pytest.mark.fault("F43")
def test_retry_of_a_file_that_grew(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A retry fetches the files of missing rows again, also where the job is told as it was before."""
    make_staging(con)
    submission_id = submitted(con)
    wait_at_the_server(con)
    stays = JOB | {"change": {"status": "CANCELLED", "completed_requests": 1, "succeeded_requests": 1}}
    emulator.faults(stays, ONE_ROW)
    con.execute("FROM mistral_batch_wait($id, timeout_seconds := 30)", {"id": submission_id})
    assert outcomes(con, submission_id) == ["ok", "missing", "missing"]
    emulator.faults(stays)
    assert rows(con, "FROM mistral_batch_retry($id)", {"id": submission_id}) == []
    assert outcomes(con, submission_id) == ["ok"] * 3
    assert emulator.witness()["jobs_stored"] == 1


@pytest.mark.fault("F43", "F44")
@pytest.mark.parametrize("early", EARLY)
def test_retry_that_cannot_ask(early: str, emulator: Emulator, home: Path) -> None:
    """A retry that cannot ask for the job again sends nothing and says so."""
    with connect(emulator, home, deadline_seconds=1) as con:
        submission_id = told_early(con, emulator, early, read=True)
        emulator.faults(JOB | {"status": 503})
        before = asked_for_money(emulator)
        with pytest.raises(duckdb.Error, match=r"HTTP 503.* Nothing was sent: requests that have no answer here may"):
            con.execute("FROM mistral_batch_retry($id)", {"id": submission_id}).fetchall()
        assert asked_for_money(emulator) == before


@pytest.mark.fault("F43")
@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("early", BAD)
def test_submit_of_what_ended_well_after_all(
    early: str, read: bool, con: duckdb.DuckDBPyConnection, emulator: Emulator
) -> None:
    """The same statement again is not submitted anew where the job has not ended badly after all."""
    submission_id = told_early(con, emulator, early, read=read)
    (row,) = rows(con, "FROM mistral_batch_submit('staging')")
    assert (row["submission_id"], row["reused"], row["status"]) == (submission_id, True, "SUCCESS")
    assert emulator.witness()["jobs_stored"] == 1


@pytest.mark.fault("F43")
def test_submit_that_cannot_ask(emulator: Emulator, home: Path) -> None:
    """The same statement again sends nothing where nobody can tell whether the job still ended badly."""
    with connect(emulator, home, deadline_seconds=1) as con:
        told_early(con, emulator, "FAILED", read=False)
        emulator.faults(JOB | {"status": 503})
        with pytest.raises(duckdb.Error, match="Nothing was sent"):
            con.execute("FROM mistral_batch_submit('staging')").fetchall()
        assert emulator.witness()["jobs_stored"] == 1


@pytest.mark.fault("F43")
def test_submit_of_a_job_that_is_listed_alone(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A 404 is no second word on a bad end: the list has the job, and nothing is submitted anew."""
    submission_id = told_early(con, emulator, "CANCELLED", read=False)
    emulator.faults(JOB | {"status": 404})
    (row,) = rows(con, "FROM mistral_batch_submit('staging')")
    assert (row["submission_id"], row["reused"], row["status"]) == (submission_id, True, "SUCCESS")
    assert emulator.witness()["jobs_stored"] == 1


@pytest.mark.fault("F43", "F49")
@pytest.mark.parametrize("listed", [OTHERS, {"status": 503}], ids=["a list that is cut", "no list"])
def test_submit_that_cannot_look(listed: dict[str, Any], emulator: Emulator, home: Path) -> None:
    """The same statement sends nothing where the job is unknown, and the list does not tell that it is gone."""
    with connect(emulator, home, deadline_seconds=1) as con:
        told_early(con, emulator, "CANCELLED", read=False)
        emulator.faults(JOB | {"status": 404}, LIST | listed)
        with pytest.raises(duckdb.Error, match=r"(is not whole \(100 jobs\)|HTTP 503).* Nothing was sent"):
            con.execute("FROM mistral_batch_submit('staging')").fetchall()
        assert emulator.witness()["jobs_stored"] == 1


@pytest.mark.fault("F43")
def test_submit_of_a_job_that_is_gone(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """The same statement is submitted anew where the job had ended badly, and the workspace has it no more."""
    submission_id = told_early(con, emulator, "CANCELLED", read=False)
    emulator.faults(JOB | {"status": 404, "times": 1}, LIST | NO_JOBS | HOURS_LATER)
    (row,) = rows(con, "FROM mistral_batch_submit('staging')")
    assert (row["submission_id"] == submission_id, row["reused"]) == (False, False)


@pytest.mark.fault("F43")
def test_submit_of_a_job_that_comes_back(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """The same statement sends nothing where a job that had counted as gone is listed after all, and ended well."""
    submission_id = told_early(con, emulator, "CANCELLED", read=False)
    emulator.faults(JOB | {"status": 404, "times": 1}, LIST | NO_JOBS | HOURS_LATER | {"times": LOOKS})
    (row,) = rows(con, "FROM mistral_batch_submit('staging')")
    assert (row["submission_id"], row["reused"], row["status"]) == (submission_id, True, "SUCCESS")
    assert emulator.witness()["jobs_stored"] == 1


@pytest.mark.fault("F43", "F51")
def test_submit_of_a_job_that_is_not_shown_yet(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """The same statement sends nothing where the workspace does not show a job that was created a moment ago."""
    told_early(con, emulator, "CANCELLED", read=False)
    emulator.faults(JOB | {"status": 404}, LIST | NO_JOBS)
    with pytest.raises(duckdb.Error, match=r"less than 60 seconds ago .* may not be shown yet\. Nothing was sent"):
        con.execute("FROM mistral_batch_submit('staging')").fetchall()
    assert emulator.witness()["jobs_stored"] == 1


@pytest.mark.fault("F51")
def test_reuse_of_a_running_job_that_is_listed_alone(tmp_path: Path, home: Path) -> None:
    """A 404 does not make requests free that a listed job is at work on."""
    with Emulator(tmp_path / "server", job_seconds=30) as emulator, connect(emulator, home) as con:
        make_staging(con)
        submitted(con)
        emulator.faults(JOB | {"status": 404})
        again = "SELECT 'again ' || custom_id AS custom_id, prompt FROM staging"
        with pytest.raises(duckdb.Error, match="would be paid for twice"):
            submitted(con, again, "reuse := 'requests'")
        assert emulator.witness()["jobs_stored"] == 1


@pytest.mark.fault("F51")
@pytest.mark.parametrize("later", [{}, HOURS_LATER], ids=["created a moment ago", "seen running a moment ago"])
def test_reuse_of_a_job_that_is_not_shown_yet(later: dict[str, Any], tmp_path: Path, home: Path) -> None:
    """A job that the workspace does not show is not gone where it was created, or seen running, a moment ago."""
    with Emulator(tmp_path / "server", job_seconds=30) as emulator, connect(emulator, home) as con:
        make_staging(con)
        submitted(con)
        emulator.faults(JOB | later | {"status": 404}, LIST | NO_JOBS | later)
        again = "SELECT 'again ' || custom_id AS custom_id, prompt FROM staging"
        with pytest.raises(duckdb.Error, match=r"may not be shown yet\. Nothing was sent"):
            submitted(con, again, "reuse := 'requests'")
        assert emulator.witness()["jobs_stored"] == 1


@pytest.mark.fault("F51")
def test_reuse_of_a_job_that_a_later_look_finds(tmp_path: Path, home: Path) -> None:
    """A job of some time ago that the list leaves out is found by the last of several looks."""
    server = Emulator(tmp_path / "server", job_seconds=30)
    with server as emulator, connect(emulator, home, reconcile_seconds=0.3) as con:
        make_staging(con)
        submitted(con)
        time.sleep(0.5)  # it was seen running longer ago than reconcile_seconds
        emulator.faults(JOB | {"status": 404}, LIST | NO_JOBS | HOURS_LATER | {"times": LOOKS - 1})
        again = "SELECT 'again ' || custom_id AS custom_id, prompt FROM staging"
        with pytest.raises(duckdb.Error, match="would be paid for twice"):
            submitted(con, again, "reuse := 'requests'")
        assert emulator.witness()["jobs_stored"] == 1


@pytest.mark.fault("F43", "F44")
@pytest.mark.parametrize("early", EARLY)
def test_reuse_of_what_came_late(early: str, con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """Requests that have been answered since they were read as missing are not sent by another statement either."""
    told_early(con, emulator, early, read=True)
    again = "SELECT 'again ' || custom_id AS custom_id, prompt FROM staging"
    other = submitted(con, again, "reuse := 'requests'")
    assert [(row["outcome"], row["reused"]) for row in results(con, other)] == [("ok", True)] * 3
    assert emulator.witness()["jobs_stored"] == 1


@pytest.mark.fault("F43")
@pytest.mark.parametrize("gone", [True, False])
def test_kept_results_need_no_server(gone: bool, emulator: Emulator, home: Path) -> None:
    """Results with missing rows are read as they are kept where the API does not answer, or has forgotten the job."""
    with connect(emulator, home, deadline_seconds=1) as con:
        submission_id = told_early(con, emulator, "SUCCESS, whose counts grow", read=True)
        if gone:
            emulator.faults(JOB | {"status": 404})
        else:
            emulator.stop()
        assert outcomes(con, submission_id) == ["ok", "missing", "missing"]
    with connect(emulator, home, api_key=None) as keyless:
        assert outcomes(keyless, submission_id) == ["ok", "missing", "missing"]


@pytest.mark.fault("F44")
def test_kept_rows_stay(emulator: Emulator, home: Path) -> None:
    """A later file that holds less than what is kept takes nothing away, and one that is gone does neither."""
    with connect(emulator, home, deadline_seconds=1) as con:
        submission_id = told_early(con, emulator, "SUCCESS, whose counts grow", read=True)
        fewer = JOB | {"change": {"completed_requests": 0, "succeeded_requests": 0, "failed_requests": 0}}
        for content in ({"status": 404}, {"status": 410}, {"status": 500}, {"status": 200, "body": ""}):
            emulator.faults(fewer, CONTENT | content)
            assert outcomes(con, submission_id, ", partial := true") == ["ok", "missing", "missing"]
        emulator.faults(JOB, CONTENT | {"status": 500})
        with pytest.raises(duckdb.Error, match=r"HTTP 500.* partial := true"):
            outcomes(con, submission_id)
        emulator.faults()
        assert outcomes(con, submission_id) == ["ok"] * 3


@pytest.mark.fault("F45")
@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("early", EARLY)
def test_status_that_is_taken_back(early: str, read: bool, con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """A job that runs again is waited for: nothing of it is read as missing or sent again meanwhile."""
    submission_id = told_early(con, emulator, early, read=read)
    emulator.faults(RUNS_AGAIN)
    before = asked_for_money(emulator)
    with pytest.raises(duckdb.Error, match="is RUNNING"):
        con.execute("FROM mistral_batch_retry($id)", {"id": submission_id}).fetchall()
    with pytest.raises(duckdb.Error, match="is RUNNING"):
        outcomes(con, submission_id)
    assert rows(con, "FROM mistral_batch_results()") == []
    if read:
        assert "missing" in outcomes(con, submission_id, ", partial := true")
    with pytest.raises(duckdb.Error, match="is RUNNING"):
        con.execute("FROM mistral_batch_wait($id, timeout_seconds := 0)", {"id": submission_id}).fetchall()
    con.execute("FROM mistral_batch_submit('staging')").fetchall()
    assert asked_for_money(emulator) == before
    emulator.faults()
    con.execute("FROM mistral_batch_wait($id, timeout_seconds := 30)", {"id": submission_id})
    assert outcomes(con, submission_id) == ["ok"] * 3


def test_whole_results_are_not_asked_for(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """Results without missing rows ask the API nothing, and no later word changes them."""
    submission_id = told_early(con, emulator, "CANCELLED", read=True)
    assert outcomes(con, submission_id) == ["ok"] * 3
    emulator.faults(RUNS_AGAIN)
    before = emulator.witness()["requests"]
    assert outcomes(con, submission_id) == ["ok"] * 3
    assert emulator.witness()["requests"] == before


def test_results_of_an_older_version(con: duckdb.DuckDBPyConnection, emulator: Emulator, home: Path) -> None:
    """Kept results of which nobody has noted what is missing are looked into, and asked for where something is."""
    import sqlite3

    submission_id = told_early(con, emulator, "CANCELLED", read=True)
    with sqlite3.connect(home / "ledger.sqlite") as ledger:
        ledger.execute("UPDATE jobs SET results_missing = NULL, results_told = NULL")
    ledger.close()
    assert outcomes(con, submission_id) == ["ok"] * 3


@pytest.mark.fault("F43")
@pytest.mark.parametrize("word", BAD)
@pytest.mark.parametrize("told", [1, 2])
def test_end_without_a_time_is_asked_for_again(told: int, word: str, slow: Emulator, home: Path) -> None:
    """A running job that is told to have failed once or twice, without the time of its end, is not paid for again."""
    with connect(slow, home) as con:
        make_staging(con)
        submission_id = submitted(con)
        flaps = JOB | {"change": NOTHING | {"status": word, "completed_at": None}, "times": told}
        slow.faults(flaps)
        assert submitted(con) == submission_id
        slow.faults(flaps)
        with pytest.raises(duckdb.Error, match="Nothing was sent"):
            con.execute("FROM mistral_batch_retry($id)", {"id": submission_id}).fetchall()
    assert slow.witness()["jobs_stored"] == 1
