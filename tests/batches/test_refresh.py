"""Asking how jobs are, where the API does not tell of some."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from batches.in_parts import DEADLINE, JOBS, Clock, in_parts, submitted_parts

from duckdb_mistral.batches.refresh import refresh

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator


@pytest.mark.parametrize("status", [500, 400])
def test_job_that_cannot_be_read(status: int, slow: Emulator, home: Path) -> None:
    """Jobs that the API cannot read stop the refresh of no other; the first is told, and alone is waited for."""
    with in_parts(slow, home) as con:
        _, *ids = submitted_parts(con)
    slow.faults(
        {"method": "GET", "path": f"{JOBS}/({ids[0]}|{ids[1]})", "status": status, "times": 100},
        {"method": "GET", "path": f"{JOBS}/.+", "change": {"status": "CANCELLED"}},
    )
    clock = Clock()
    with closing(clock.context(slow, home)) as context:
        asked = refresh(context, context.ledger.jobs())
        assert asked.gone == ()
        assert [job.ended for job in context.ledger.jobs()] == [False, False, True]
        assert f"Could not read job {ids[0]}: " in str(asked.trouble)
    assert clock.now <= DEADLINE


@pytest.mark.parametrize("fault", [{"close": True}, {"status": 429}])
def test_server_that_cannot_be_read(fault: dict[str, Any], slow: Emulator, home: Path) -> None:
    """Where it may be the server and not one job that is in trouble, the other jobs are not asked for."""
    with in_parts(slow, home) as con:
        submitted_parts(con)
    reads = {"method": "GET", "path": f"{JOBS}/.+"}
    slow.faults(reads | fault, reads | {"change": {"status": "CANCELLED"}, "times": 2})
    with closing(Clock().context(slow, home, deadline=0)) as context:
        asked = refresh(context, context.ledger.jobs())
        assert not any(job.ended for job in context.ledger.jobs())
        assert asked.trouble is not None
