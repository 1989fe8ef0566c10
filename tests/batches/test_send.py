"""Many parts: uploaded a few at once and no sooner than needed, created in order, with few calls beside."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from batches.in_parts import submit_parts
from support import connect, make_staging, rows, settings_of

from duckdb_mistral.api.client import BatchClient
from duckdb_mistral.batches import send
from duckdb_mistral.batches.context import Context
from duckdb_mistral.batches.create import Creator
from duckdb_mistral.batches.send import WAVE
from duckdb_mistral.emulator import Emulator
from duckdb_mistral.jobs.job import Step
from duckdb_mistral.runtime.clocks import awake
from duckdb_mistral.settings import Settings
from duckdb_mistral.state.ledger import Ledger

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.jobs.job import Job


def test_part_that_no_limit_lets_through(tmp_path: Path, home: Path) -> None:
    """A part that waits for room, and that a lowered limit could never take, is told at once, with what to do."""
    with Emulator(tmp_path / "server", job_seconds=60) as emulator:
        found = submit_parts(emulator, home, 2, max_pending_requests=3)
        assert [row["status"] for row in found] == ["QUEUED", "HELD"]
        with connect(emulator, home, max_pending_requests=1) as con:
            waiting = f"FROM mistral_batch_wait('{found[0]['submission_id']}')"
            with pytest.raises(duckdb.Error, match=r"Part 2 .* has 2 requests, more than .* allows at all \(1\)"):
                rows(con, waiting)
            assert [row["status"] for row in rows(con, "FROM mistral_batch_status()")][1] == "HELD"


def test_created_in_order(emulator: Emulator, home: Path) -> None:
    """The jobs of many parts are created in the order of the parts, each from the file of its own part."""
    found = submit_parts(emulator, home, WAVE + 3)
    listed = Context(Settings.resolve(settings_of(emulator, home), {})).client.jobs(
        statuses=None, model=None, created_after=None
    )
    created = [report.job_id for report in listed][::-1]
    assert [row["part"] for row in found] == list(range(1, WAVE + 4))
    assert [row["job_id"] for row in found] == created
    witness = emulator.witness()
    assert witness["uploads_stored"] == WAVE + 3
    assert (witness["rows_accepted"], witness["rows_accepted_more_than_once"]) == (2 * (WAVE + 3), 0)


def test_parts_that_a_copy_of_the_home_created(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that were created from a copy of the home, while this process slept between two creates, are adopted."""
    create, copy = Creator.create, home.with_name("copy")

    def create_and_sleep(self: Creator, *arguments: Any) -> bool:
        created = create(self, *arguments)
        monkeypatch.setattr(Creator, "create", create)
        shutil.copytree(home, copy)
        assert len(submit_parts(emulator, copy, 3)) == 3
        monkeypatch.setattr(send, "awake", lambda: awake() + 1000)
        return created

    monkeypatch.setattr(Creator, "create", create_and_sleep)
    found = submit_parts(emulator, home, 3)
    with connect(emulator, copy) as con:
        theirs = rows(con, "SELECT job_id FROM mistral_batch_status() ORDER BY part")
    assert [row["job_id"] for row in found] == [row["job_id"] for row in theirs]
    witness = emulator.witness()
    assert (witness["jobs_stored"], witness["rows_accepted_more_than_once"]) == (3, 0)


@pytest.mark.parametrize("models", [2, 3])
def test_part_of_two_waves(models: int, emulator: Emulator, home: Path) -> None:
    """Each part is uploaded once, also one whose jobs on several models are created in two waves."""
    named = ["mistral-small-latest", "ministral-3b-latest", "ministral-8b-latest"][:models]
    assert models * 14 > WAVE
    with connect(emulator, home, max_requests_per_job=2) as con:
        make_staging(con, 2 * 14)
        con.execute("FROM mistral_batch_submit('staging', model := $named)", {"named": named}).fetchall()
    witness = emulator.witness()
    assert (witness["uploads_stored"], witness["jobs_stored"]) == (14, models * 14)


def test_pending_jobs_are_listed_once_for_a_wave(emulator: Emulator, home: Path) -> None:
    """The pending jobs are listed once before all and once for each wave of creates, not for each create."""
    submit_parts(emulator, home, 3 * WAVE)
    asked = emulator.witness()["requests"]
    assert asked["create"] == 3 * WAVE
    assert asked["list_jobs"] <= 2 * (1 + 3)  # a page, and the empty one after it


def test_no_more_is_uploaded_than_there_is_room_for(tmp_path: Path, home: Path) -> None:
    """A part that waits for room is uploaded when there is room, not before."""
    with Emulator(tmp_path / "server", job_seconds=60, max_pending_requests=7) as emulator:
        found = submit_parts(emulator, home, 10, max_pending_requests=7)
        assert [row["status"] for row in found] == ["QUEUED"] * 3 + ["HELD"] * 7
        witness = emulator.witness()
        assert (witness["uploads_stored"], witness["requests"]["create"]) == (3, 3)
        assert witness["peak_pending_requests"] == 6


def test_other_submissions_are_counted(tmp_path: Path, home: Path) -> None:
    """What another submission has pending leaves less room."""
    with Emulator(tmp_path / "server", job_seconds=60) as emulator:
        submit_parts(emulator, home, 2)
        found = submit_parts(emulator, home, 4, max_pending_requests=9)
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
    found = submit_parts(emulator, home, 4)
    assert [row["part"] for row in found if row["status"] == "CANCELLED"] == [3]
    assert emulator.witness()["creates_received"] == 3


def test_many_parts_that_wait(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All parts without room are recorded as held at once, not one after another."""
    moved: list[int] = []
    move, begin = Ledger.move, Ledger.begin

    def counted(ledger: Ledger, job: Job, step: Step, **others: Any) -> bool:
        moved.append(job.part)
        return move(ledger, job, step, **others)

    def begun(ledger: Ledger, job: Job, **others: Any) -> Job | None:
        moved.append(job.part)
        return begin(ledger, job, **others)

    monkeypatch.setattr(Ledger, "move", counted)
    monkeypatch.setattr(Ledger, "begin", begun)
    found = submit_parts(emulator, home, 40, max_pending_requests=2)
    assert [row["status"] for row in found][1:] == ["HELD"] * 39
    assert moved == [1]
