"""Cancelling: what is given up is not created, and one failure stops no other."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import duckdb
import pytest
from batches.in_parts import DEADLINE, JOBS, STATUS, Clock, in_parts, submit_and_lose, submitted_parts
from support import rows

from duckdb_mistral.batches.cancel import cancel
from duckdb_mistral.errors import ApiError

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator


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
