"""Uploading parts: a few at once, each once, and again only where the file is gone."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from support import connect, make_staging, rows

from duckdb_mistral.api.client import BatchClient
from duckdb_mistral.batches.upload import UPLOADS_AT_ONCE
from duckdb_mistral.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
from batches.in_parts import submit_parts


def test_uploads_at_once(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several parts are uploaded at once, on threads of their own; one part is, on the thread of the call."""
    meeting = threading.Barrier(UPLOADS_AT_ONCE)
    threads: set[int] = set()
    upload = BatchClient.upload

    def met(client: BatchClient, path: Path, name: str) -> str:
        threads.add(threading.get_ident())
        meeting.wait(30)
        return upload(client, path, name)

    monkeypatch.setattr(BatchClient, "upload", met)
    submit_parts(emulator, home, UPLOADS_AT_ONCE)
    assert len(threads) == UPLOADS_AT_ONCE


def test_files_are_looked_for_only_where_they_may_be(tmp_path: Path, home: Path) -> None:
    """A part that was held is uploaded without a look for it; one whose upload's answer was lost is found again."""
    with Emulator(tmp_path / "server", max_pending_requests=4) as emulator:
        found = submit_parts(emulator, home, 4, max_pending_requests=4)
        assert [row["status"] for row in found][2:] == ["HELD"] * 2
        emulator.faults({"method": "POST", "path": "/v1/files", "status": 500, "after": True})
        with connect(emulator, home, max_pending_requests=4) as con:
            waiting = f"FROM mistral_batch_wait('{found[0]['submission_id']}')"
            assert [row["status"] for row in rows(con, waiting)] == ["SUCCESS"] * 4
        witness = emulator.witness()
        assert (witness["uploads_stored"], witness["requests"]["upload"]) == (4, 4)
        assert witness["requests"]["list_files"] == 2  # one for whose turn it is


def test_one_file_for_all_models(emulator: Emulator, home: Path) -> None:
    """A part is uploaded once, however many models run on it."""
    with connect(emulator, home, max_requests_per_job=2) as con:
        make_staging(con, 6)
        models = "['mistral-small-latest', 'ministral-3b-latest']"
        found = rows(con, f"FROM mistral_batch_submit('staging', model := {models})")
    assert len(found) == 6
    assert emulator.witness()["uploads_stored"] == 3


def test_file_that_is_gone(emulator: Emulator, home: Path) -> None:
    """A part whose file was deleted at the server before its create is uploaded again."""
    gone = {"method": "GET", "path": "/v1/files/[^/]+", "status": 404}
    emulator.faults({"method": "POST", "path": "/v1/batch/jobs", "status": 404}, gone)
    found = submit_parts(emulator, home, 3, reconcile_seconds=1)
    assert len({row["job_id"] for row in found}) == 3
    witness = emulator.witness()
    assert (witness["jobs_stored"], witness["uploads_stored"]) == (3, 4)
    assert witness["rows_accepted_more_than_once"] == 0
