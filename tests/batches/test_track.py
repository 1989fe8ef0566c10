"""How far jobs are: one submission that does not go on stops no other."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import duckdb
import pytest
from batches.in_parts import REFUSED, in_parts
from support import rows, settings_of

from duckdb_mistral.batches.context import Context
from duckdb_mistral.batches.track import unsent
from duckdb_mistral.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator


def test_wait_for_what_is_being_sent(emulator: Emulator, home: Path) -> None:
    """A part whose submission some process is at is waited for."""
    emulator.faults(REFUSED)
    with in_parts(emulator, home) as con, pytest.raises(duckdb.Error, match="no such model"):
        con.execute("FROM mistral_batch_submit('staging')")
    context = Context(Settings.resolve(settings_of(emulator, home)))
    jobs = context.ledger.jobs()
    assert unsent(context, jobs) == jobs
    with context.locks.waiting(str(jobs[0].submission_id)):
        assert unsent(context, jobs) == []


def test_status_of_the_others(slow: Emulator, home: Path) -> None:
    """A held part whose requests are gone stops the status of no other submission, and is told in its row."""
    with in_parts(slow, home, max_pending_requests=4) as con:
        submission_id = rows(con, "FROM mistral_batch_submit('staging')")[0]["submission_id"]
    shutil.rmtree(home / "spool" / submission_id)
    with in_parts(slow, home) as con:
        con.execute("FROM mistral_batch_submit('SELECT 1 AS custom_id, ''other'' AS prompt')")
        statuses = rows(con, "FROM mistral_batch_status() ORDER BY submission_id <> $id, part", {"id": submission_id})
        assert [row["status"] == "HELD" for row in statuses] == [False, False, True, False]
        assert "are gone from" in statuses[2]["errors"][0]["message"]
        assert rows(con, "FROM mistral_batch_results()") == []
        with pytest.raises(duckdb.Error, match=r"The requests of part 3 of submission .* are gone from"):
            con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
