"""Machines that share a ledger and wait at the same time: one asks the API, for all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest
from postgres import is_there, shared_server
from support import connect, rows

from duckdb_mistral.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not is_there(), reason="no PostgreSQL is installed here")

MACHINES = 6
#: How long the jobs run, and the pauses between two looks, which grow to 60 seconds at most.
JOB_SECONDS = 3
POLL_SECONDS = 0.3
OTHER_KEY = "another-key-of-the-workspace"


def waited(emulator: Emulator, home: Path, submission_id: str, ledger: str) -> list[str]:
    """Wait on a machine of its own, and return how the jobs ended."""
    with connect(emulator, home, poll_seconds=POLL_SECONDS, ledger=ledger) as con:
        told = rows(con, "FROM mistral_batch_wait($id, timeout_seconds := 60)", {"id": submission_id})
        return [row["status"] for row in told]


def polls(emulator: Emulator) -> int:
    """Return how often the API was asked how jobs are."""
    asked = emulator.witness()["requests"]
    return int(asked.get("job", 0) + asked.get("list_jobs", 0))


def test_one_asks_for_all(tmp_path: Path) -> None:
    """Six machines that wait, each for jobs of its own, ask the API hardly more often than one, and all see the end."""
    asked = []
    for machines in (1, MACHINES):
        directory, ledger = tmp_path / str(machines), shared_server().new_url()
        with Emulator(directory / "server", job_seconds=JOB_SECONDS) as emulator:
            with connect(emulator, directory / "first", ledger=ledger) as con:
                submitted = [
                    rows(con, f"FROM mistral_batch_submit('SELECT 1 AS custom_id, ''{number}'' AS prompt')")
                    for number in range(machines)
                ]
            before = polls(emulator)
            homes = [directory / str(number) for number in range(machines)]
            ids = [job["submission_id"] for (job,) in submitted]
            with ThreadPoolExecutor(machines) as threads:
                ends = threads.map(partial(waited, emulator, ledger=ledger), homes, ids)
                assert list(ends) == [["SUCCESS"]] * machines
            asked.append(polls(emulator) - before)
    alone, together = asked
    # Each by itself would ask as often as one does; one that begins late asks once more.
    assert together <= 2 * alone + MACHINES
    assert together < MACHINES * alone


def test_jobs_of_another_key(tmp_path: Path) -> None:
    """What another key has submitted is asked for by whoever waits for it, since nobody else does."""
    ledger = shared_server().new_url()
    with (
        Emulator(tmp_path / "server", job_seconds=1) as emulator,
        connect(emulator, tmp_path / "one", ledger=ledger) as one,
        connect(emulator, tmp_path / "two", ledger=ledger, poll_seconds=POLL_SECONDS, api_key=OTHER_KEY) as two,
    ):
        (job,) = rows(one, "FROM mistral_batch_submit('SELECT 1 AS custom_id, ''x'' AS prompt')")
        (told,) = rows(two, "FROM mistral_batch_wait($id, timeout_seconds := 60)", {"id": job["submission_id"]})
        assert told["status"] == "SUCCESS"
