"""Ids that only the workspace knows, and retries that another home has made."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from batches.in_parts import CREATE, in_parts, submitted_parts
from support import answered, connect, make_staging, rows, submitted, wait_at_the_server

from duckdb_mistral.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

#: What refuses the second of several creates.
SECOND_REFUSED = CREATE | {"status": 422, "skip": 1, "times": 1, "body": '{"detail": "no"}'}
RETRY = "FROM mistral_batch_retry($id)"
OPTIONS = ("", "timeout_hours := 5", "output := 'STRUCT(mood VARCHAR)'")


def cancelled(emulator: Emulator, home: Path, arguments: str = "") -> tuple[str, str]:
    """Submit three rows and cancel them before they are answered; return the ids of the submission and of its job."""
    with connect(emulator, home) as con:
        make_staging(con)
        submission_id = submitted(con, arguments=arguments)
        (row,) = rows(con, "FROM mistral_batch_cancel($id)", {"id": submission_id})
        con.execute("FROM mistral_batch_wait($id, timeout_seconds := 60)", {"id": submission_id})
    return submission_id, row["job_id"]


def retried(emulator: Emulator, home: Path, identifier: str) -> list[str]:
    """Retry what an id left; return the ids of the jobs that do that."""
    with connect(emulator, home) as con:
        return [row["job_id"] for row in rows(con, RETRY, {"id": identifier})]


@pytest.mark.parametrize("of_job", [False, True])
@pytest.mark.parametrize("function", ["status", "wait", "results", "cost", "retry", "cancel"])
def test_id_that_only_the_workspace_knows(function: str, of_job: bool, emulator: Emulator, home: Path) -> None:
    """Every function takes the id of another home's submission, or of its job, and the ledger knows both then."""
    with connect(emulator, home) as con:
        make_staging(con)
        submission_id = submitted(con)
        wait_at_the_server(con)
        (job,) = rows(con, "FROM mistral_batch_status()")
        expected = answered(con, submission_id)
    with connect(emulator, home.with_name("empty")) as con:
        identifier = job["job_id"] if of_job else submission_id
        found = rows(con, f"FROM mistral_batch_{function}('{identifier}')")
        if function == "results":
            assert sorted(row["custom_id"] for row in found) == ["0", "1", "2"]
        else:
            assert {row["job_id"] for row in found} == (set() if function == "retry" else {job["job_id"]})
        assert [row["submission_id"] for row in rows(con, "FROM mistral_batch_status()")] == [submission_id]
        assert answered(con, submission_id) == expected
        assert submitted(con, "SELECT range AS custom_id, 'prompt ' || range AS prompt FROM range(3)") == submission_id
    assert emulator.witness()["rows_accepted"] == 3


@pytest.mark.parametrize("arguments", OPTIONS)
@pytest.mark.parametrize("by", ["submission", "job", "backup"])
def test_retry_that_another_home_has_made(by: str, arguments: str, slow: Emulator, home: Path) -> None:
    """A retry that runs is the other home's retry too, by any id, and with any time limit and declared output."""
    submission_id, job_id = cancelled(slow, home, arguments)
    other = home.with_name("other")
    if by == "backup":
        shutil.copytree(home, other)
    first = retried(slow, home, submission_id)
    assert len(first) == 1
    assert retried(slow, other, job_id if by == "job" else submission_id) == first
    assert slow.witness()["rows_accepted"] == 6


def test_retry_that_was_answered_elsewhere(tmp_path: Path, home: Path) -> None:
    """What another home's retry has answered is read, and not sent again."""
    with Emulator(tmp_path / "server", job_seconds=1) as emulator:
        submission_id, _ = cancelled(emulator, home)
        other = home.with_name("other")
        shutil.copytree(home, other)
        retried(emulator, home, submission_id)
        with connect(emulator, home) as con:
            expected = answered(con, submission_id)
        paid = emulator.witness()["rows_accepted"]
        assert retried(emulator, other, submission_id) == []
        with connect(emulator, other) as con:
            assert answered(con, submission_id) == expected
        assert {row["outcome"] for row in expected} == {"ok"}
        assert emulator.witness()["rows_accepted"] == paid


def test_submission_that_is_sent_in_part(emulator: Emulator, home: Path) -> None:
    """The id of a submission that another home has created only some jobs of is refused, and theirs are taken alone."""
    emulator.faults(SECOND_REFUSED)
    with in_parts(emulator, home) as con:
        with pytest.raises(duckdb.Error, match="no"):
            submitted_parts(con)
        (first, *_) = rows(con, "FROM mistral_batch_status() WHERE job_id IS NOT NULL")
        empty = home.with_name("empty")
        with connect(emulator, empty) as other:
            with pytest.raises(duckdb.Error, match="is another home's, and so far 1 of its 3 jobs have been created"):
                other.execute(f"FROM mistral_batch_status('{first['submission_id']}')").fetchall()
            assert len(rows(other, f"FROM mistral_batch_results('{first['job_id']}')")) == 2
            with pytest.raises(duckdb.Error, match=r"not all jobs of which are listed\. Nothing was sent"):
                other.execute(RETRY, {"id": first["job_id"]})
        everything = submitted_parts(con)
        wait_at_the_server(con)
    with connect(emulator, empty) as other:
        assert len(rows(other, f"FROM mistral_batch_results('{everything[0]}')")) == 6


def test_retry_that_is_sent_in_part(slow: Emulator, home: Path) -> None:
    """A retry that another home has created only some jobs of is told, and nothing is sent."""
    settings: dict[str, Any] = {"deadline_seconds": 3, "reconcile_seconds": 0.2}
    with in_parts(slow, home, **settings) as con:
        submission_id, *_ = submitted_parts(con)
        con.execute("FROM mistral_batch_cancel($id)", {"id": submission_id}).fetchall()
        con.execute("FROM mistral_batch_wait($id, timeout_seconds := 60)", {"id": submission_id})
        other = home.with_name("other")
        shutil.copytree(home, other)
        slow.faults(SECOND_REFUSED)
        with pytest.raises(duckdb.Error, match="no"):
            con.execute(RETRY, {"id": submission_id})
        with in_parts(slow, other, **settings) as second:
            with pytest.raises(duckdb.Error, match=r"from another home, and so far 1 of its 3 jobs .* Nothing"):
                second.execute(RETRY, {"id": submission_id})
            retry = rows(con, RETRY, {"id": submission_id})
            assert [row["job_id"] for row in rows(second, RETRY, {"id": submission_id})] == [
                row["job_id"] for row in retry
            ]
    assert slow.witness()["rows_accepted"] == 12


def test_rows_that_another_home_alone_knows(emulator: Emulator, home: Path) -> None:
    """The id of a submission that sent one request for several rows is refused in another home, which lacks some."""
    shared = "SELECT range AS custom_id, 'prompt ' || range % 2 AS prompt FROM range(4)"
    with connect(emulator, home) as con:
        (row,) = rows(con, "FROM mistral_batch_submit($source, reuse := 'requests')", {"source": shared})
        assert len(answered(con, row["submission_id"])) == 4
    with connect(emulator, home.with_name("empty")) as con:
        with pytest.raises(duckdb.Error, match=r"made with reuse := 'requests', and which of its rows"):
            con.execute(f"FROM mistral_batch_results('{row['submission_id']}')").fetchall()
        assert len(rows(con, f"FROM mistral_batch_results('{row['job_id']}')")) == 2
