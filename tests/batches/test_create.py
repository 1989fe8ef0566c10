"""Many parts: uploaded a few at once and no sooner than needed, created in order, with few calls beside."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from support import connect, make_staging, rows, settings_of

from duckdb_mistral.api.client import BatchClient
from duckdb_mistral.batches.context import Context
from duckdb_mistral.batches.create import UPLOADS_AT_ONCE, WAVE
from duckdb_mistral.emulator import Emulator
from duckdb_mistral.jobs.job import Step
from duckdb_mistral.settings import Settings
from duckdb_mistral.state.ledger import Ledger

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.jobs.job import Job


def submit(emulator: Emulator, home: Path, parts: int, **settings: Any) -> list[dict[str, Any]]:
    """Submit so many parts of two requests each."""
    with connect(emulator, home, max_requests_per_job=2, **settings) as con:
        make_staging(con, 2 * parts)
        return rows(con, "FROM mistral_batch_submit('staging')")


def test_part_that_no_limit_lets_through(tmp_path: Path, home: Path) -> None:
    """A part that waits for room, and that a lowered limit could never take, is told at once, with what to do."""
    with Emulator(tmp_path / "server", job_seconds=60) as emulator:
        found = submit(emulator, home, 2, max_pending_requests=3)
        assert [row["status"] for row in found] == ["QUEUED", "HELD"]
        with connect(emulator, home, max_pending_requests=1) as con:
            waiting = f"FROM mistral_batch_wait('{found[0]['submission_id']}')"
            with pytest.raises(duckdb.Error, match=r"Part 2 .* has 2 requests, more than .* allows at all \(1\)"):
                rows(con, waiting)
            assert [row["status"] for row in rows(con, "FROM mistral_batch_status()")][1] == "HELD"


def test_created_in_order(emulator: Emulator, home: Path) -> None:
    """The jobs of many parts are created in the order of the parts, each from the file of its own part."""
    found = submit(emulator, home, WAVE + 3)
    listed = Context(Settings.resolve(settings_of(emulator, home), {})).client.jobs(
        statuses=None, model=None, created_after=None
    )
    created = [report.job_id for report in listed][::-1]
    assert [row["part"] for row in found] == list(range(1, WAVE + 4))
    assert [row["job_id"] for row in found] == created
    witness = emulator.witness()
    assert witness["uploads_stored"] == WAVE + 3
    assert (witness["rows_accepted"], witness["rows_accepted_more_than_once"]) == (2 * (WAVE + 3), 0)


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
    submit(emulator, home, UPLOADS_AT_ONCE)
    assert len(threads) == UPLOADS_AT_ONCE


def test_pending_jobs_are_listed_once_for_a_wave(emulator: Emulator, home: Path) -> None:
    """The pending jobs are listed once before all and once for each wave of creates, not for each create."""
    submit(emulator, home, 3 * WAVE)
    asked = emulator.witness()["requests"]
    assert asked["create"] == 3 * WAVE
    assert asked["list_jobs"] <= 2 * (1 + 3)  # a page, and the empty one after it


def test_no_more_is_uploaded_than_there_is_room_for(tmp_path: Path, home: Path) -> None:
    """A part that waits for room is uploaded when there is room, not before."""
    with Emulator(tmp_path / "server", job_seconds=60, max_pending_requests=7) as emulator:
        found = submit(emulator, home, 10, max_pending_requests=7)
        assert [row["status"] for row in found] == ["QUEUED"] * 3 + ["HELD"] * 7
        witness = emulator.witness()
        assert (witness["uploads_stored"], witness["requests"]["create"]) == (3, 3)
        assert witness["peak_pending_requests"] == 6


def test_files_are_looked_for_only_where_they_may_be(tmp_path: Path, home: Path) -> None:
    """A part that was held is uploaded without a look for it; one whose upload's answer was lost is found again."""
    with Emulator(tmp_path / "server", max_pending_requests=4) as emulator:
        found = submit(emulator, home, 4, max_pending_requests=4)
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


def test_other_submissions_are_counted(tmp_path: Path, home: Path) -> None:
    """What another submission has pending leaves less room."""
    with Emulator(tmp_path / "server", job_seconds=60) as emulator:
        submit(emulator, home, 2)
        found = submit(emulator, home, 4, max_pending_requests=9)
        assert [row["status"] for row in found] == ["QUEUED"] * 2 + ["HELD"] * 2


def test_cancelled_while_it_is_sent(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is dropped while the jobs before it are created is not created."""
    create = BatchClient.create

    def dropping(client: BatchClient, **options: Any) -> Any:
        ledger = Context(Settings.resolve(settings_of(emulator, home), {})).ledger
        for job in ledger.jobs():
            if job.part == 3 and job.step is Step.PLANNED:
                ledger.move(job, Step.DROPPED)
        return create(client, **options)

    monkeypatch.setattr(BatchClient, "create", dropping)
    found = submit(emulator, home, 4)
    assert [row["part"] for row in found if row["status"] == "CANCELLED"] == [3]
    assert emulator.witness()["creates_received"] == 3


@pytest.mark.parametrize("times", [1, 2])
def test_file_that_is_not_found_yet(times: int, emulator: Emulator, home: Path) -> None:
    """A create that does not find its file is sent again, and the jobs after it are created too."""
    emulator.faults({"method": "POST", "path": "/v1/batch/jobs", "status": 404, "skip": 1, "times": times})
    found = submit(emulator, home, 3, reconcile_seconds=1)
    assert len({row["job_id"] for row in found}) == 3
    witness = emulator.witness()
    assert (witness["jobs_stored"], witness["uploads_stored"]) == (3, 3)


def test_file_that_is_gone(emulator: Emulator, home: Path) -> None:
    """A part whose file was deleted at the server before its create is uploaded again."""
    gone = {"method": "GET", "path": "/v1/files/[^/]+", "status": 404}
    emulator.faults({"method": "POST", "path": "/v1/batch/jobs", "status": 404}, gone)
    found = submit(emulator, home, 3, reconcile_seconds=1)
    assert len({row["job_id"] for row in found}) == 3
    witness = emulator.witness()
    assert (witness["jobs_stored"], witness["uploads_stored"]) == (3, 4)
    assert witness["rows_accepted_more_than_once"] == 0


def test_billing_that_is_not_on(emulator: Emulator, home: Path) -> None:
    """A create that is refused until billing is on says so; the same statement then creates from the same file."""
    create = {"method": "POST", "path": "/v1/batch/jobs", "status": 402, "body": '{"message": "Payment required"}'}
    emulator.faults(create | {"times": 2})
    for _ in range(2):
        with pytest.raises(duckdb.Error, match=r"until billing is on \(HTTP 402: Payment required\)"):
            submit(emulator, home, 3, reconcile_seconds=1)
    with connect(emulator, home) as con:
        (submission_id,) = {row["submission_id"] for row in rows(con, "FROM mistral_batch_status()")}
        with pytest.raises(duckdb.Error, match=r"not sent\. .*until billing is on.* Run the submit statement again"):
            con.execute("FROM mistral_batch_wait($id)", {"id": submission_id}).fetchall()
    found = submit(emulator, home, 3, reconcile_seconds=1)
    assert {row["submission_id"] for row in found} == {submission_id}
    witness = emulator.witness()
    assert (witness["requests"]["upload"], witness["uploads_stored"], witness["jobs_stored"]) == (3, 3, 3)


@pytest.mark.fault("F54")
def test_create_that_is_answered_with_another_job(emulator: Emulator, home: Path) -> None:
    """A create whose answer names another job of ours is looked for, and each part has its own job."""
    first, *_ = submit(emulator, home, 1)
    stripped = {"id": first["job_id"], "input_files": None}
    emulator.faults({"method": "POST", "path": "/v1/batch/jobs", "change": stripped, "times": 2})
    found = submit(emulator, home, 3)
    assert len({row["job_id"] for row in (first, *found)}) == 4
    assert emulator.witness()["jobs_stored"] == 4
    with connect(emulator, home) as con:
        assert len(rows(con, "FROM mistral_batch_status()")) == 4


def test_many_parts_that_wait(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All parts without room are recorded as held at once, not one after another."""
    moved: list[Step] = []
    move = Ledger.move

    def counted(ledger: Ledger, job: Job, step: Step, **others: Any) -> bool:
        moved.append(step)
        return move(ledger, job, step, **others)

    monkeypatch.setattr(Ledger, "move", counted)
    found = submit(emulator, home, 40, max_pending_requests=2)
    assert [row["status"] for row in found][1:] == ["HELD"] * 39
    assert moved == [Step.SENDING]
