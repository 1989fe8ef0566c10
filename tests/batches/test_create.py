"""Creating one job: what its answer says, and what refuses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest
from batches.in_parts import submit_parts
from support import connect, rows

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator


@pytest.mark.parametrize("times", [1, 2])
def test_file_that_is_not_found_yet(times: int, emulator: Emulator, home: Path) -> None:
    """A create that does not find its file is sent again, and the jobs after it are created too."""
    emulator.faults({"method": "POST", "path": "/v1/batch/jobs", "status": 404, "skip": 1, "times": times})
    found = submit_parts(emulator, home, 3, reconcile_seconds=1)
    assert len({row["job_id"] for row in found}) == 3
    witness = emulator.witness()
    assert (witness["jobs_stored"], witness["uploads_stored"]) == (3, 3)


def test_billing_that_is_not_on(emulator: Emulator, home: Path) -> None:
    """A create that is refused until billing is on says so; the same statement then creates from the same file."""
    create = {"method": "POST", "path": "/v1/batch/jobs", "status": 402, "body": '{"message": "Payment required"}'}
    emulator.faults(create | {"times": 2})
    for _ in range(2):
        with pytest.raises(duckdb.Error, match=r"until billing is on \(HTTP 402: Payment required\)"):
            submit_parts(emulator, home, 3, reconcile_seconds=1)
    with connect(emulator, home) as con:
        (submission_id,) = {row["submission_id"] for row in rows(con, "FROM mistral_batch_status()")}
        with pytest.raises(duckdb.Error, match=r"not sent\. .*until billing is on.* Run the submit statement again"):
            con.execute("FROM mistral_batch_wait($id)", {"id": submission_id}).fetchall()
    found = submit_parts(emulator, home, 3, reconcile_seconds=1)
    assert {row["submission_id"] for row in found} == {submission_id}
    witness = emulator.witness()
    assert (witness["requests"]["upload"], witness["uploads_stored"], witness["jobs_stored"]) == (3, 3, 3)


@pytest.mark.fault("F54")
def test_create_that_is_answered_with_another_job(emulator: Emulator, home: Path) -> None:
    """A create whose answer names another job of ours is looked for, and each part has its own job."""
    first, *_ = submit_parts(emulator, home, 1)
    stripped = {"id": first["job_id"], "input_files": None}
    emulator.faults({"method": "POST", "path": "/v1/batch/jobs", "change": stripped, "times": 2})
    found = submit_parts(emulator, home, 3)
    assert len({row["job_id"] for row in (first, *found)}) == 4
    assert emulator.witness()["jobs_stored"] == 4
    with connect(emulator, home) as con:
        assert len(rows(con, "FROM mistral_batch_status()")) == 4
