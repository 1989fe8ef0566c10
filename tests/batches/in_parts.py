"""Submissions of several parts, some of which are lost or refused, and clocks that only sleeping moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support import connect, make_staging, rows, settings_of

from duckdb_mistral.batches.context import Context
from duckdb_mistral.runtime.retry_policy import Retry
from duckdb_mistral.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator

JOBS = "/v1/batch/jobs"
CREATE = {"method": "POST", "path": JOBS}
#: An answer of the list without any jobs.
EMPTY_LIST = {"method": "GET", "path": JOBS, "change": {"data": [], "total": 0}}
#: An answer to a create that refuses it for what it is.
REFUSED = CREATE | {"status": 422, "body": '{"detail": "no such model"}'}
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


def submit_parts(emulator: Emulator, home: Path, parts: int, **settings: Any) -> list[dict[str, Any]]:
    """Submit so many parts of two requests each."""
    with connect(emulator, home, max_requests_per_job=2, **settings) as con:
        make_staging(con, 2 * parts)
        return rows(con, "FROM mistral_batch_submit('staging')")
