"""Submitting anew what was cancelled, given up or refused."""

from __future__ import annotations

import shutil
import sqlite3
import time
from typing import TYPE_CHECKING

import duckdb
import pytest
from batches.in_parts import CREATE, in_parts, submit_and_lose
from support import answered, asked_for_money, connect, make_staging, rows, settings_of

from duckdb_mistral.batches.context import Context
from duckdb_mistral.jobs.job import Step
from duckdb_mistral.settings import Settings
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.ledger import Ledger

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator


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
        (before,) = Ledger(Home(home)).submissions()
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


@pytest.mark.parametrize("body", [r'{"message": "cut \ud83d"}', '{"detail": [{"loc": null, "msg": "odd"}]}'])
@pytest.mark.parametrize("status", [400, 401, 422, 429])
def test_refusal_with_odd_words(status: int, body: str, emulator: Emulator, home: Path) -> None:
    """Whatever words a refusal comes with, it counts as one and not as a lost answer; the same submit sends it."""
    emulator.faults(CREATE | {"status": status, "body": body})
    with in_parts(emulator, home, max_requests_per_job=6) as con:
        if status == 429:  # held, and not an error
            con.execute("FROM mistral_batch_submit('staging')")
        else:
            with pytest.raises(duckdb.Error, match=f"HTTP {status}: "):
                con.execute("FROM mistral_batch_submit('staging')")
        (job,) = Context(Settings.resolve(settings_of(emulator, home))).ledger.jobs()
        assert job.step is (Step.HELD if status == 429 else Step.PLANNED)
        con.execute("FROM mistral_batch_submit('staging')")
    assert emulator.witness()["creates_received"] == 1


def test_requests_that_went_before_they_were_sent(emulator: Emulator, home: Path) -> None:
    """A submission that has sent nothing and lost its requests gives way to the same rows: it does not block them."""
    con = connect(emulator, home)
    make_staging(con, 3)
    emulator.faults({"method": "POST", "path": "/v1/files", "status": 500})
    with pytest.raises(duckdb.Error, match="500"):
        con.execute("FROM mistral_batch_submit('staging')")
    emulator.faults()
    shutil.rmtree(home / "spool")
    (row,) = rows(con, "FROM mistral_batch_submit('staging')")
    assert (row["total_requests"], row["reused"]) == (3, False)
    assert len(answered(con, row["submission_id"])) == 3
    assert [one["submission_id"] for one in rows(con, "FROM mistral_batch_status()")] == [row["submission_id"]]
    assert emulator.witness()["rows_accepted"] == 3


def test_requests_that_went_while_others_were_sent(emulator: Emulator, home: Path) -> None:
    """Once a part is paid for, a part whose requests are gone is told: only force pays for all of them again."""
    with in_parts(emulator, home, max_pending_requests=4) as con:
        submission_id = rows(con, "FROM mistral_batch_submit('staging')")[0]["submission_id"]
        shutil.rmtree(home / "spool" / submission_id)
    with in_parts(emulator, home) as con, pytest.raises(duckdb.Error, match=r"are gone from .* force := true if other"):
        con.execute("FROM mistral_batch_submit('staging')")


def test_models_in_another_order(con: duckdb.DuckDBPyConnection, emulator: Emulator) -> None:
    """The same rows for the same models are one submission, in whatever order the models are named."""
    make_staging(con)
    first, second = (
        rows(con, f"FROM mistral_batch_submit('staging', model := {models})") for models in (["b", "a"], ["a", "b"])
    )
    assert [row["model"] for row in first] == ["b", "a"]
    assert {row["job_id"] for row in first} == {row["job_id"] for row in second}
    assert [row["reused"] for row in first + second] == [False, False, True, True]
    assert asked_for_money(emulator)[1] == 2
