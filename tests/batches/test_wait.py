"""Waiting: for what is sent, not for what only a submit would send, and as long as it was asked to."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import duckdb
import pytest
from batches.in_parts import JOBS, REFUSED, STATUS, Clock, in_parts, submitted_parts
from support import rows

from duckdb_mistral.batches.wait import wait
from duckdb_mistral.emulator import Emulator
from duckdb_mistral.errors import WaitTimeoutError

if TYPE_CHECKING:
    from pathlib import Path


def test_wait_for_what_was_not_sent(emulator: Emulator, home: Path) -> None:
    """A wait for parts that only a submit would send says at once which, why and what to do; that submit sends them."""
    emulator.faults(REFUSED | {"skip": 1})
    with in_parts(emulator, home) as con:
        with pytest.raises(duckdb.Error, match="no such model"):
            con.execute("FROM mistral_batch_submit('staging')")
        found = rows(con, "SELECT DISTINCT submission_id FROM mistral_batch_status()")
        submission_id = found[0]["submission_id"]
        sentence = (
            f"Part 2 of submission {submission_id} and 1 other were not sent. Could not create the batch job.*"
            "no such model.*Run the submit statement again to send them, or give them up with mistral_batch"
        )
        with pytest.raises(duckdb.Error, match=sentence):
            con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
        statuses = rows(con, STATUS)
        assert [row["status"] for row in statuses][1:] == ["HELD", "HELD"]
        assert "no such model" in statuses[1]["errors"][0]["message"]
        assert emulator.witness()["creates_received"] == 1
        con.execute("FROM mistral_batch_submit('staging')")
        waited = rows(con, "FROM mistral_batch_wait($id)", {"id": submission_id})
        assert {row["status"] for row in waited} == {"SUCCESS"}
    assert emulator.witness()["creates_received"] == 3


def test_held_part_that_is_refused(tmp_path: Path, home: Path) -> None:
    """A part that waited for room and is refused then is not asked for again and again, but told."""
    with Emulator(tmp_path / "server", max_pending_requests=4) as server:
        with in_parts(server, home, max_pending_requests=4) as con:
            submission_id = rows(con, "FROM mistral_batch_submit('staging')")[0]["submission_id"]
            server.faults(REFUSED | {"times": 100})
            with pytest.raises(duckdb.Error, match=r"Part 3 of submission .* was not sent\. .*no such model"):
                con.execute("FROM mistral_batch_wait($id)", {"id": submission_id})
            server.faults()
            con.execute("FROM mistral_batch_submit('staging')")
            waited = rows(con, "FROM mistral_batch_wait($id)", {"id": submission_id})
            assert {row["status"] for row in waited} == {"SUCCESS"}
        assert server.witness()["rows_accepted_more_than_once"] == 0


def test_wait_that_cannot_read(slow: Emulator, home: Path) -> None:
    """A wait whose polls fail ends at its own timeout, neither at the deadline of a read nor one interval later."""
    with in_parts(slow, home) as con:
        submission_id, *_ = submitted_parts(con)
    slow.faults({"method": "GET", "path": f"{JOBS}/.+", "status": 503, "times": 1000})
    clock = Clock()
    with closing(clock.context(slow, home, poll=1)) as context:
        for timeout in range(1, 20):
            started = clock.now
            with pytest.raises(WaitTimeoutError, match="answered HTTP 503"):
                wait(context, submission_id, timeout_seconds=timeout)
            assert clock.now - started == pytest.approx(timeout)
