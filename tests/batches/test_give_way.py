"""What waited for room here, or was refused, while another home paid for the same: its jobs are taken over."""

from __future__ import annotations

import contextlib
import shutil
import time
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from batches.in_parts import CREATE, in_parts, submitted_parts
from support import answered, connect, make_staging, rows, submitted, wait_at_the_server

from duckdb_mistral.batches import turns
from duckdb_mistral.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

STATUS = "SELECT DISTINCT submission_id FROM mistral_batch_status()"
QUICK = {"deadline_seconds": 3, "reconcile_seconds": 0.2}


@pytest.fixture(autouse=True)
def _no_waiting_for_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait for a home that has uploaded and was refused."""
    monkeypatch.setattr(turns, "CLAIM_SECONDS", 0.0)


def pay_elsewhere(emulator: Emulator, home: Path, **settings: Any) -> list[str]:
    """Submit the same from another home; return the submission's id, and those of its jobs."""
    with in_parts(emulator, home.with_name("other"), **settings) as con:
        return submitted_parts(con)


def hold(emulator: Emulator, home: Path, arguments: str = "") -> tuple[duckdb.DuckDBPyConnection, str]:
    """Submit what has no room as long as one more request is pending; return the connection, and the submission."""
    with connect(emulator, home.with_name("first")) as con:
        make_staging(con, 1)
        submitted_parts(con)
    con = in_parts(emulator, home, max_requests_per_job=6, max_pending_requests=6, **QUICK)
    (held,) = rows(con, f"FROM mistral_batch_submit('staging'{arguments})")
    assert held["status"] == "HELD"
    return con, held["submission_id"]


def check_taken_over(con: duckdb.DuckDBPyConnection, emulator: Emulator, theirs: list[str], others: int = 0) -> None:
    """Check that the statement returns the jobs of the other home, which are all that was paid for beside `others`."""
    assert submitted_parts(con) == theirs
    assert rows(con, STATUS) == [{"submission_id": theirs[0]}]
    assert len(answered(con, theirs[0])) == 6
    assert emulator.witness()["rows_accepted"] == 6 + others


@pytest.mark.parametrize("rule", [{"status": status} for status in (402, 403, 422, 429)] + [{"close": True}])
def test_statement_after_a_refusal(rule: dict[str, Any], emulator: Emulator, home: Path) -> None:
    """A statement whose create was refused, or lost and not taken, pays for nothing that another home has paid for."""
    emulator.faults(CREATE | rule | {"times": 1})
    with in_parts(emulator, home, **QUICK) as con:
        with contextlib.suppress(duckdb.Error):  # a limit makes the part wait instead
            con.execute("FROM mistral_batch_submit('staging')")
        emulator.faults()
        theirs = pay_elsewhere(emulator, home)
        time.sleep(1)  # a lost create is looked for until reconcile_seconds have passed
        check_taken_over(con, emulator, theirs)
    assert not list((home / "spool").iterdir())


def test_status_after_a_limit(emulator: Emulator, home: Path) -> None:
    """A status does not create what the API's limit held once another home has created the same, but shows its jobs."""
    emulator.faults(CREATE | {"status": 429})
    with in_parts(emulator, home, **QUICK) as con:
        assert {row["status"] for row in rows(con, "FROM mistral_batch_submit('staging')")} == {"HELD"}
        theirs = pay_elsewhere(emulator, home)
        assert rows(con, STATUS) == [{"submission_id": theirs[0]}]
        check_taken_over(con, emulator, theirs)


def test_wait_for_room(tmp_path: Path, home: Path) -> None:
    """A wait for a part that had no room names the submission that another home has created in its place."""
    with Emulator(tmp_path / "server", job_seconds=1) as emulator:
        con, submission_id = hold(emulator, home)
        theirs = pay_elsewhere(emulator, home)
        wait_at_the_server(con)
        with con:
            with pytest.raises(
                duckdb.Error, match=rf"{submission_id} is no longer needed.* as submission {theirs[0]}\."
            ):
                con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
            check_taken_over(con, emulator, theirs, others=1)


def test_statement_that_had_no_room(tmp_path: Path, home: Path) -> None:
    """A statement that was held for room takes over what another home has created since."""
    with Emulator(tmp_path / "server", job_seconds=1) as emulator:
        con, _ = hold(emulator, home)
        theirs = pay_elsewhere(emulator, home)
        with con:
            check_taken_over(con, emulator, theirs, others=1)


def test_part_of_the_jobs_elsewhere(tmp_path: Path, home: Path) -> None:
    """While another home has created only some of the same jobs, a status sends and forgets nothing, and says so."""
    with Emulator(tmp_path / "server", job_seconds=1) as emulator:
        con, submission_id = hold(emulator, home)
        pay_elsewhere(emulator, home, max_pending_requests=3)
        wait_at_the_server(con)
        with con:
            (row,) = rows(con, "FROM mistral_batch_status()")
        assert (row["submission_id"], row["status"]) == (submission_id, "HELD")
        assert "so far 1 of its 3 jobs have been created" in row["errors"][0]["message"]
        assert emulator.witness()["rows_accepted"] == 1 + 2


def test_forced_submission_does_not_give_way(tmp_path: Path, home: Path) -> None:
    """What was submitted with force and had no room is sent, whoever has paid for the same."""
    with Emulator(tmp_path / "server", job_seconds=1) as emulator:
        con, submission_id = hold(emulator, home, ", force := true")
        pay_elsewhere(emulator, home)
        with con:
            assert len(answered(con, submission_id)) == 6
        assert emulator.witness()["rows_accepted"] == 1 + 6 + 6


def test_refused_retry(emulator: Emulator, home: Path) -> None:
    """A retry that was refused pays for nothing that the same retry from another home has paid for."""
    retry = "FROM mistral_batch_retry($id)"
    with connect(emulator, home, **QUICK) as con:
        named = {"id": submitted(con, "FROM (VALUES (1, 'fine'), (2, '[[error 500]]')) t(custom_id, prompt)")}
        con.execute("FROM mistral_batch_wait($id)", named)
    shutil.copytree(home, home.with_name("other"))
    emulator.faults(CREATE | {"status": 402})
    with connect(emulator, home, **QUICK) as con, connect(emulator, home.with_name("other"), **QUICK) as other:
        with pytest.raises(duckdb.Error, match="402"):
            con.execute(retry, named)
        theirs = rows(other, retry, named)
        ours = rows(con, retry, named)
    assert [row["job_id"] for row in ours] == [row["job_id"] for row in theirs]
    assert emulator.witness()["jobs_stored"] == 2
