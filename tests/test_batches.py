"""The use cases where something was lost or refused: what is given up is not created, one failure stops no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support import connect, make_staging, rows

from duckdb_mistral.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JOBS = "/v1/batch/jobs"
CREATE = {"method": "POST", "path": JOBS}
#: An answer of the list without any jobs.
EMPTY_LIST = {"method": "GET", "path": JOBS, "change": {"data": []}}
STATUS = "SELECT part, status, job_id, errors FROM mistral_batch_status() ORDER BY part"


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Emulator]:
    """Yield a local server whose jobs take a minute."""
    with Emulator(tmp_path / "slow", job_seconds=60) as server:
        yield server


def in_parts(emulator: Emulator, home: Path, **settings: Any) -> duckdb.DuckDBPyConnection:
    """Return a connection with a staging table of six rows, which are submitted in parts of two."""
    con = connect(emulator, home, max_requests_per_job=2, **settings)
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


# Submitting anew


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
