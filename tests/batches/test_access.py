"""Another key: the same workspace is gone on with, another one is never paid in by a look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support import connect, make_staging, rows, submitted

from duckdb_mistral.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

OTHER_KEY = "another-key-of-the-tests"
JOBS = "/v1/batch/jobs"
#: How a submission comes to be held: before its upload, where the list of jobs leaves no room, or after it.
FULL = {"id": "3f2a9c1e-0000-4000-8000-00000000000a", "status": "QUEUED", "total_requests": 1_000_000}
BEFORE_UPLOAD = {"method": "GET", "path": JOBS, "change": {"data": [FULL]}}
AFTER_UPLOAD = {"method": "POST", "path": JOBS, "status": 429}
STATUS = "SELECT submission_id, status, errors FROM mistral_batch_status($id)"


def hold(server: Emulator, home: Path, fault: dict[str, Any], first: str | None = None) -> str:
    """Submit three requests, after `first`, which are held by a fault; return the submission's id."""
    with connect(server, home) as con:
        make_staging(con)
        if first is not None:
            submitted(con, first)
        server.faults(fault)
        (row,) = rows(con, "FROM mistral_batch_submit('staging')")
    assert row["status"] == "HELD"
    return str(row["submission_id"])


@pytest.mark.parametrize("separate", [False, True])
def test_nothing_was_created_yet(separate: bool, tmp_path: Path, home: Path) -> None:
    """What another key only planned is sent by this one where it is submitted, not where it is looked at."""
    with Emulator(tmp_path / "server", job_seconds=60, separate_workspaces=separate) as server:
        submission_id = hold(server, home, BEFORE_UPLOAD)
        with connect(server, home, api_key=OTHER_KEY) as con:
            make_staging(con)
            (row,) = rows(con, STATUS, {"id": None})
            assert row["status"] == "HELD"
            assert "run the submit statement again to send it with this one" in row["errors"][0]["message"]
            for call in (f"wait('{submission_id}')", f"status('{submission_id}')"):
                with pytest.raises(duckdb.Error, match="was made with another API key"):
                    con.execute(f"FROM mistral_batch_{call}")
            assert server.witness()["creates_received"] == 0
            assert submitted(con) == submission_id
            assert rows(con, STATUS, {"id": None})[0]["status"] in ("QUEUED", "RUNNING")
        assert server.witness()["creates_received"] == 1


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("told_by", ["file", "another submission"])
def test_workspace_that_is_told(told_by: str, separate: bool, tmp_path: Path, home: Path) -> None:
    """Whether what was held is of this workspace, its file tells, or a job of its key's other submissions."""
    with Emulator(tmp_path / "server", job_seconds=60, separate_workspaces=separate) as server:
        if told_by == "file":
            submission_id = hold(server, home, AFTER_UPLOAD)
        else:
            submission_id = hold(server, home, BEFORE_UPLOAD, first="SELECT 1 AS custom_id, 'first' AS prompt")
        before = server.witness()["rows_accepted"]
        with connect(server, home, api_key=OTHER_KEY) as con:
            make_staging(con)
            status = {row["submission_id"]: row for row in rows(con, STATUS, {"id": None})}[submission_id]
            assert (status["status"] == "HELD") == separate
            if separate:
                assert "whose jobs this key cannot see" in status["errors"][0]["message"]
                with pytest.raises(duckdb.Error, match="whose jobs this key cannot see"):
                    submitted(con)
            else:
                assert submitted(con) == submission_id
        assert server.witness()["rows_accepted"] == before + (0 if separate else 3)


def test_lost_create_is_not_taken_over(tmp_path: Path, home: Path) -> None:
    """A create of another key whose answer was lost may be a job of its workspace: this key does not send it."""
    with Emulator(tmp_path / "server", separate_workspaces=True) as server:
        server.faults({"method": "POST", "path": "/v1/batch/jobs", "close": True})
        with connect(server, home) as con:
            make_staging(con)
            with pytest.raises(duckdb.Error, match="is not known"):
                submitted(con)
        with connect(server, home, api_key=OTHER_KEY, reconcile_seconds=0) as con:
            make_staging(con)
            with pytest.raises(duckdb.Error, match="whose jobs this key cannot see"):
                submitted(con)
        assert server.witness()["creates_received"] == 0
