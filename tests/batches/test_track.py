"""The use cases where something was lost or refused: what is given up is not created, one failure stops no other."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support import connect, make_staging, rows, settings_of

from duckdb_mistral.batches.cancel import cancel
from duckdb_mistral.batches.context import Context
from duckdb_mistral.batches.refresh import refresh
from duckdb_mistral.batches.track import unsent
from duckdb_mistral.batches.wait import wait
from duckdb_mistral.emulator import Emulator
from duckdb_mistral.errors import ApiError, WaitTimeoutError
from duckdb_mistral.runtime.retry_policy import Retry
from duckdb_mistral.settings import Settings
from duckdb_mistral.state.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JOBS = "/v1/batch/jobs"
CREATE = {"method": "POST", "path": JOBS}
#: An answer of the list without any jobs.
EMPTY_LIST = {"method": "GET", "path": JOBS, "change": {"data": []}}
STATUS = "SELECT part, status, job_id, errors FROM mistral_batch_status() ORDER BY part"


#: How long a read is repeated on a `Clock`.
DEADLINE = 30.0


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def context(self, emulator: Emulator, home: Path, *, deadline: float = DEADLINE, poll: float = 0.02) -> Context:
        """Return a context whose pauses take no time."""
        retry = Retry(budget_seconds=deadline, clock=lambda: self.now, sleep=self.sleep)
        return Context(Settings.resolve(settings_of(emulator, home, poll_seconds=poll)), retry=retry)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Emulator]:
    """Yield a local server whose jobs take a minute."""
    with Emulator(tmp_path / "slow", job_seconds=60) as server:
        yield server


def in_parts(emulator: Emulator, home: Path, **settings: Any) -> duckdb.DuckDBPyConnection:
    """Return a connection with a staging table of six rows, which are submitted in parts of two."""
    con = connect(emulator, home, **{"max_requests_per_job": 2} | settings)
    make_staging(con, 6)
    return con


def submit_and_lose(emulator: Emulator, home: Path, *, taken: bool) -> str:
    """Submit three parts; the first create's answer is lost, and the job not listed. Return the submission's id."""
    emulator.faults(CREATE | {"close": True, "after": taken}, EMPTY_LIST | {"skip": 2, "times": 1})
    with in_parts(emulator, home) as con:
        with pytest.raises(duckdb.Error, match="It is not known yet whether the API took part 1 of submission"):
            con.execute("FROM mistral_batch_submit('staging')")
        emulator.faults()
        (found,) = rows(con, "SELECT DISTINCT submission_id FROM mistral_batch_status()")
    assert emulator.witness()["creates_received"] == int(taken)
    return str(found["submission_id"])


def submitted_parts(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Submit the staging table; return the submission's id, and those of its jobs in order."""
    found = rows(con, "FROM mistral_batch_submit('staging') ORDER BY part")
    return [found[0]["submission_id"], *(row["job_id"] for row in found)]


# Cancelling


def test_cancel_creates_nothing(slow: Emulator, home: Path) -> None:
    """A cancelled submission creates nothing later: not the parts that waited, nor the one that did not arrive."""
    submission_id = submit_and_lose(slow, home, taken=False)
    with in_parts(slow, home) as con:
        with pytest.raises(duckdb.Error, match=r"not known yet whether the API took part 1 .* in \d+ seconds or later"):
            con.execute("FROM mistral_batch_cancel($id)", {"id": submission_id})
        assert [row["status"] for row in rows(con, STATUS)] == ["UNKNOWN", "CANCELLED", "CANCELLED"]
    with in_parts(slow, home, reconcile_seconds=0) as con:
        assert [row["status"] for row in rows(con, STATUS)] == ["CANCELLED"] * 3
        assert slow.witness()["creates_received"] == 0
        anew = rows(con, "FROM mistral_batch_submit('staging')")
        assert submission_id not in {row["submission_id"] for row in anew}
    assert slow.witness()["rows_accepted_more_than_once"] == 0


def test_cancel_past_the_time_of_looking(slow: Emulator, home: Path) -> None:
    """A create that did not arrive is dropped by a cancel, once it was looked for long enough."""
    submission_id = submit_and_lose(slow, home, taken=False)
    with in_parts(slow, home, reconcile_seconds=0) as con:
        cancelled = rows(con, "FROM mistral_batch_cancel($id)", {"id": submission_id})
        assert [(row["status"], row["job_id"]) for row in cancelled] == [("CANCELLED", None)] * 3
    assert slow.witness()["creates_received"] == 0


def test_cancel_of_what_was_taken(slow: Emulator, home: Path) -> None:
    """A job whose create's answer was lost is found by a cancel, and cancelled."""
    submission_id = submit_and_lose(slow, home, taken=True)
    with in_parts(slow, home) as con:
        cancelled = rows(con, "FROM mistral_batch_cancel($id)", {"id": submission_id})
    assert cancelled[0]["job_id"] is not None
    assert cancelled[0]["status"] in ("CANCELLATION_REQUESTED", "CANCELLED")
    assert slow.witness()["creates_received"] == 1


def test_cancel_asks_for_all(slow: Emulator, home: Path) -> None:
    """A job that the API does not cancel is told, after every other one was asked and what waited was dropped."""
    with in_parts(slow, home, max_pending_requests=4) as con:
        submission_id = rows(con, "FROM mistral_batch_submit('staging')")[0]["submission_id"]
        slow.faults({"method": "POST", "path": f"{JOBS}/.+/cancel", "status": 500})
        with pytest.raises(duckdb.Error, match=r"Could not cancel job .* answered HTTP 500"):
            con.execute("FROM mistral_batch_cancel($id)", {"id": submission_id})
        first, *others = (row["status"] for row in rows(con, STATUS))
        assert first in ("QUEUED", "RUNNING")
        assert set(others) <= {"CANCELLATION_REQUESTED", "CANCELLED"}


def test_cancel_of_what_cannot_be_read(slow: Emulator, home: Path) -> None:
    """Jobs that can neither be cancelled nor read are told after every other one was asked; one is waited for."""
    with in_parts(slow, home) as con:
        submission_id, *ids = submitted_parts(con)
    slow.faults({"method": ".*", "path": f"{JOBS}/({ids[0]}|{ids[1]})(/cancel)?", "status": 500, "times": 100})
    clock = Clock()
    with closing(clock.context(slow, home)) as context:
        with pytest.raises(ApiError, match=rf"Could not cancel job {ids[0]}: .* answered HTTP 500"):
            cancel(context, submission_id)
        *others, last = (job.status for job in context.ledger.jobs())
    assert last in ("CANCELLATION_REQUESTED", "CANCELLED")
    assert not {"CANCELLATION_REQUESTED", "CANCELLED"} & set(others)
    assert clock.now <= DEADLINE


# Submitting anew


def test_submitting_what_was_cancelled_in_part(emulator: Emulator, home: Path) -> None:
    """Parts that were answered and a part that was cancelled are told as being there, and nothing is sent."""
    with in_parts(emulator, home, max_pending_requests=4) as con:
        first = rows(con, "FROM mistral_batch_submit('staging')")
        assert first[2]["status"] == "HELD"
        while rows(con, "FROM mistral_batch_jobs() WHERE status <> 'SUCCESS'"):
            time.sleep(0.02)
        con.execute("FROM mistral_batch_cancel($id)", {"id": first[0]["submission_id"]})
        again = rows(con, "SELECT part, job_id IS NULL AS dropped, reused FROM mistral_batch_submit('staging')")
    assert again == [{"part": part, "dropped": part == 3, "reused": True} for part in (1, 2, 3)]
    assert emulator.witness()["creates_received"] == 2


def test_submission_without_parts(emulator: Emulator, home: Path) -> None:
    """A ledger's submission that has no parts and no answers does not stand for its content."""
    with connect(emulator, home) as con:
        make_staging(con)
        con.execute("FROM mistral_batch_submit('staging')")
        (before,) = Ledger(home).submissions()
        with sqlite3.connect(home / "ledger.sqlite") as ledger:
            ledger.execute("DELETE FROM jobs")
            ledger.execute("DELETE FROM parts")
        ledger.close()
        (row,) = rows(con, "FROM mistral_batch_submit('staging')")
    assert row["submission_id"] != before.submission_id
    assert (row["total_requests"], row["reused"]) == (3, False)


@pytest.mark.parametrize("taken", [False, True])
def test_force_gives_up_what_was_lost(taken: bool, slow: Emulator, home: Path) -> None:
    """A submission that gave way to another creates nothing later; what the API had taken is found all the same."""
    first = submit_and_lose(slow, home, taken=taken)
    with in_parts(slow, home, reconcile_seconds=0) as con:
        (second,) = {row["submission_id"] for row in rows(con, "FROM mistral_batch_submit('staging', force := true)")}
        found = {row["submission_id"]: row for row in rows(con, "FROM mistral_batch_status() ORDER BY part DESC")}
    assert set(found) == {first, second}
    assert (found[first]["job_id"] is not None) == taken
    if not taken:
        assert found[first]["status"] == "CANCELLED"
    assert slow.witness()["creates_received"] == 3 + taken
    assert slow.witness()["rows_accepted_more_than_once"] == 2 * taken


# What only a submit sends

REFUSED = CREATE | {"status": 422, "body": '{"detail": "no such model"}'}


def test_wait_for_what_was_not_sent(emulator: Emulator, home: Path) -> None:
    """A wait for parts that only a submit would send says at once which, why and what to do; that submit sends them."""
    emulator.faults(REFUSED | {"skip": 1})
    with in_parts(emulator, home) as con:
        with pytest.raises(duckdb.Error, match="no such model"):
            con.execute("FROM mistral_batch_submit('staging')")
        found = rows(con, "SELECT DISTINCT submission_id FROM mistral_batch_status()")
        submission_id = found[0]["submission_id"]
        sentence = (
            f"Part 2 of submission {submission_id} and another one were not sent. Could not create the batch job.*"
            "no such model.*Run the submit statement again, which goes on with it, or give it up with mistral_batch"
        )
        with pytest.raises(duckdb.Error, match=sentence):
            con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
        statuses = rows(con, STATUS)
        assert [row["status"] for row in statuses][1:] == ["HELD", "HELD"]
        assert "no such model" in statuses[1]["errors"][0]["message"]
        assert emulator.witness()["creates_received"] == 1
        con.execute("FROM mistral_batch_submit('staging')")
        waited = rows(con, "FROM mistral_batch_wait($id)", {"id": submission_id})
        assert {row["status"] for row in waited} == {"SUCCESS"}
    assert emulator.witness()["creates_received"] == 3


def test_wait_for_what_is_being_sent(emulator: Emulator, home: Path) -> None:
    """A part whose submission some process is at is waited for."""
    emulator.faults(REFUSED)
    with in_parts(emulator, home) as con, pytest.raises(duckdb.Error, match="no such model"):
        con.execute("FROM mistral_batch_submit('staging')")
    context = Context(Settings.resolve(settings_of(emulator, home)))
    jobs = context.ledger.jobs()
    assert unsent(context, jobs) == jobs
    with context.locks.waiting(str(jobs[0].submission_id)):
        assert unsent(context, jobs) == []


@pytest.mark.parametrize("body", [r'{"message": "cut \ud83d"}', '{"detail": [{"loc": null, "msg": "odd"}]}'])
@pytest.mark.parametrize("status", [400, 401, 422, 429])
def test_refusal_with_odd_words(status: int, body: str, emulator: Emulator, home: Path) -> None:
    """Whatever words a refusal comes with, it counts as one: no create is looked for, and the same submit sends it."""
    emulator.faults(CREATE | {"status": status, "body": body})
    with in_parts(emulator, home, max_requests_per_job=6) as con:
        if status == 429:  # held, and not an error
            con.execute("FROM mistral_batch_submit('staging')")
        else:
            with pytest.raises(duckdb.Error, match=f"HTTP {status}: "):
                con.execute("FROM mistral_batch_submit('staging')")
        assert Context(Settings.resolve(settings_of(emulator, home))).ledger.jobs()[0].sent_at is None
        con.execute("FROM mistral_batch_submit('staging')")
    assert emulator.witness()["creates_received"] == 1


def test_held_part_that_is_refused(tmp_path: Path, home: Path) -> None:
    """A part that waited for room and is refused then is not asked for again and again, but told."""
    with Emulator(tmp_path / "server", max_pending_requests=4) as server:
        with in_parts(server, home, max_pending_requests=4) as con:
            submission_id = rows(con, "FROM mistral_batch_submit('staging')")[0]["submission_id"]
            server.faults(REFUSED | {"times": 100})
            with pytest.raises(duckdb.Error, match=r"Part 3 of submission .* was not sent\. .*no such model"):
                con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
            server.faults()
            con.execute("FROM mistral_batch_submit('staging')")
            waited = rows(con, "FROM mistral_batch_wait($id)", {"id": submission_id})
            assert {row["status"] for row in waited} == {"SUCCESS"}
        assert server.witness()["rows_accepted_more_than_once"] == 0


# One submission that does not go on


def test_status_of_the_others(slow: Emulator, home: Path) -> None:
    """A held part whose requests are gone stops the status of no other submission, and is told in its row."""
    with in_parts(slow, home, max_pending_requests=4) as con:
        submission_id = rows(con, "FROM mistral_batch_submit('staging')")[0]["submission_id"]
    shutil.rmtree(home / "spool" / submission_id)
    with in_parts(slow, home) as con:
        con.execute("FROM mistral_batch_submit('SELECT 1 AS custom_id, ''other'' AS prompt')")
        statuses = rows(con, "FROM mistral_batch_status() ORDER BY submission_id <> $id, part", {"id": submission_id})
        assert [row["status"] == "HELD" for row in statuses] == [False, False, True, False]
        assert "are gone from" in statuses[2]["errors"][0]["message"]
        assert rows(con, "FROM mistral_batch_results()") == []
        with pytest.raises(duckdb.Error, match=r"The requests of part 3 of submission .* are gone from"):
            con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})


# What the API does not tell


@pytest.mark.parametrize("status", [500, 400])
def test_job_that_cannot_be_read(status: int, slow: Emulator, home: Path) -> None:
    """Jobs that the API cannot read stop the refresh of no other; the first is told, and alone is waited for."""
    with in_parts(slow, home) as con:
        _, *ids = submitted_parts(con)
    slow.faults(
        {"method": "GET", "path": f"{JOBS}/({ids[0]}|{ids[1]})", "status": status, "times": 100},
        {"method": "GET", "path": f"{JOBS}/.+", "change": {"status": "CANCELLED"}},
    )
    clock = Clock()
    with closing(clock.context(slow, home)) as context:
        asked = refresh(context, context.ledger.jobs())
        assert asked.gone == ()
        assert [job.ended for job in context.ledger.jobs()] == [False, False, True]
        assert f"Could not read job {ids[0]}: " in str(asked.trouble)
    assert clock.now <= DEADLINE


@pytest.mark.parametrize("fault", [{"close": True}, {"status": 429}])
def test_server_that_cannot_be_read(fault: dict[str, Any], slow: Emulator, home: Path) -> None:
    """Where it may be the server and not one job that is in trouble, the other jobs are not asked for."""
    with in_parts(slow, home) as con:
        submitted_parts(con)
    reads = {"method": "GET", "path": f"{JOBS}/.+"}
    slow.faults(reads | fault, reads | {"change": {"status": "CANCELLED"}, "times": 2})
    with closing(Clock().context(slow, home, deadline=0)) as context:
        asked = refresh(context, context.ledger.jobs())
        assert not any(job.ended for job in context.ledger.jobs())
        assert asked.trouble is not None


def test_wait_that_cannot_read(slow: Emulator, home: Path) -> None:
    """A wait whose polls fail ends at its own timeout, neither at the deadline of a read nor one interval later."""
    with in_parts(slow, home) as con:
        submission_id, *_ = submitted_parts(con)
    slow.faults({"method": "GET", "path": f"{JOBS}/.+", "status": 503, "times": 1000})
    clock = Clock()
    with closing(clock.context(slow, home, poll=1)) as context:
        for timeout in range(1, 20):
            started = clock.now
            with pytest.raises(WaitTimeoutError, match="answered HTTP 503"):
                wait(context, submission_id, timeout_seconds=timeout)
            assert clock.now - started == pytest.approx(timeout)
