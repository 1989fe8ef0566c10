"""Submitting anew what has failed as a whole, beside other homes that know the same submission."""

from __future__ import annotations

import shutil
import threading
import time
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from batches.in_parts import JOBS, in_parts, submitted_parts
from support import at_server, rows

from duckdb_mistral.batches.upload import Uploader

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator
    from duckdb_mistral.jobs.job import Submission

QUICK = {"deadline_seconds": 3, "reconcile_seconds": 0.2}


def cancel_at_server(emulator: Emulator, *job_ids: str) -> None:
    """Cancel jobs as a person does in the console, and wait for their ends."""
    for job_id in job_ids:
        at_server(emulator, "POST", f"{JOBS}/{job_id}/cancel")
    while any(
        at_server(emulator, "GET", f"{JOBS}/{job_id}")["status"] == "CANCELLATION_REQUESTED" for job_id in job_ids
    ):
        time.sleep(0.02)


@pytest.mark.parametrize("by", ["adoption", "backup"])
def test_two_homes(by: str, slow: Emulator, home: Path) -> None:
    """Of two homes that know what was cancelled in the console, the second takes over what the first sent anew."""
    other = home.with_name("other")
    with in_parts(slow, home, **QUICK) as con:
        first = submitted_parts(con)
    if by == "backup":
        shutil.copytree(home, other)
    else:
        with in_parts(slow, other, **QUICK) as con:
            assert submitted_parts(con) == first
    cancel_at_server(slow, *first[1:])
    with in_parts(slow, home, **QUICK) as con:
        second = submitted_parts(con)
        assert second[0] != first[0]
    with in_parts(slow, other, **QUICK) as con:
        found = rows(con, "FROM mistral_batch_submit('staging') ORDER BY part")
        assert [found[0]["submission_id"], *(row["job_id"] for row in found)] == second
        assert all(row["reused"] for row in found)
    assert slow.witness()["rows_accepted"] == 12


def test_list_that_is_not_whole(slow: Emulator, home: Path) -> None:
    """While the list hides what another home may have sent anew, nothing is sent; then that is taken over."""
    other = home.with_name("other")
    with in_parts(slow, home, **QUICK) as con:
        first = submitted_parts(con)
        shutil.copytree(home, other)
        cancel_at_server(slow, *first[1:])
        second = submitted_parts(con)
    shown = at_server(slow, "GET", JOBS)
    old = [job for job in shown["data"] if job["id"] in first]
    with in_parts(slow, other, **QUICK) as con:
        slow.faults({"method": "GET", "path": JOBS, "times": 1000, "change": {"data": old}})
        with pytest.raises(duckdb.Error, match=r"from another home is not known: .* 3 of the 6 jobs .* Nothing was"):
            submitted_parts(con)
        slow.faults()
        assert submitted_parts(con) == second
    assert slow.witness()["rows_accepted"] == 12


def test_retry_elsewhere(slow: Emulator, home: Path) -> None:
    """What failed as a whole here, and is retried in another home, is not sent again."""
    with in_parts(slow, home, **QUICK) as con:
        first = submitted_parts(con)
    shutil.copytree(home, home.with_name("other"))
    cancel_at_server(slow, *first[1:])
    with in_parts(slow, home, **QUICK) as con:
        retries = rows(con, "FROM mistral_batch_retry($id)", {"id": first[0]})
    with in_parts(slow, home.with_name("other"), **QUICK) as con:
        assert submitted_parts(con) == first
        found = rows(con, "SELECT job_id FROM mistral_batch_status($id)", {"id": first[0]})
    assert {row["job_id"] for row in found} == {*first[1:], *(row["job_id"] for row in retries)}
    assert slow.witness()["rows_accepted"] == 12


@pytest.mark.parametrize("told_by", ["metadata", "input_files"])
def test_twin_of_a_part(told_by: str, slow: Emulator, home: Path) -> None:
    """A job of the same requests that the ledger does not know is named, and nothing is sent until it has failed."""
    with in_parts(slow, home, **QUICK) as con:
        first = submitted_parts(con)
        job = at_server(slow, "GET", f"{JOBS}/{first[2]}")
        fields = {name: job[name] for name in ("input_files", "endpoint", "model", "metadata")}
        twin = at_server(slow, "POST", JOBS, fields | ({"metadata": {}} if told_by == "input_files" else {}))["id"]
        cancel_at_server(slow, *first[1:])
        with pytest.raises(duckdb.Error, match=rf"Part 2 of submission {first[0]} .* job {twin} .*Nothing was sent"):
            submitted_parts(con)
        assert slow.witness()["rows_accepted"] == 8
        cancel_at_server(slow, twin)
        second = submitted_parts(con)
    assert second[0] != first[0]
    assert slow.witness()["rows_accepted"] == 14


def test_two_homes_at_once(slow: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another home creates while the same is about to be sent anew here is taken over, not sent again."""
    other = home.with_name("other")
    with in_parts(slow, home, **QUICK) as con:
        first = submitted_parts(con)
    shutil.copytree(home, other)
    cancel_at_server(slow, *first[1:])
    upload = Uploader.uploaded
    once = threading.Lock()
    quicker: list[str] = []

    def uploaded(uploader: Uploader, submission: Submission, *others: Any) -> Any:
        if once.acquire(blocking=False):
            with in_parts(slow, other, **QUICK) as con:
                quicker.extend(submitted_parts(con))
        return upload(uploader, submission, *others)

    monkeypatch.setattr(Uploader, "uploaded", uploaded)
    with in_parts(slow, home, **QUICK) as con:
        assert submitted_parts(con) == quicker
    assert quicker[0] != first[0]
    assert slow.witness()["rows_accepted"] == 12


def test_older_submission_that_has_not_failed(slow: Emulator, home: Path) -> None:
    """What another home sent before, and has not failed, is taken over in place of what was cancelled here."""
    with in_parts(slow, home, **QUICK) as con:
        first = submitted_parts(con)
    with in_parts(slow, home.with_name("other"), **QUICK) as con:
        (forced,) = {row["submission_id"] for row in rows(con, "FROM mistral_batch_submit('staging', force := true)")}
        cancel_at_server(slow, *(row["job_id"] for row in rows(con, "FROM mistral_batch_status($id)", {"id": forced})))
        assert submitted_parts(con) == first
    assert slow.witness()["rows_accepted"] == 12


def test_two_homes_and_reuse(slow: Emulator, home: Path) -> None:
    """With reuse of requests too, the second home takes over what the first sent anew."""
    statement = "FROM mistral_batch_submit('staging', reuse := 'requests') ORDER BY part"
    with in_parts(slow, home, **QUICK) as con:
        first = rows(con, statement)
    shutil.copytree(home, home.with_name("other"))
    cancel_at_server(slow, *(row["job_id"] for row in first))
    with in_parts(slow, home, **QUICK) as con:
        second = rows(con, statement)
    with in_parts(slow, home.with_name("other"), **QUICK) as con:
        third = rows(con, statement)
    assert [row["job_id"] for row in third] == [row["job_id"] for row in second]
    assert slow.witness()["rows_accepted"] == 12
