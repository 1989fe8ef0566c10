"""Homes on several machines that share a ledger: each request is paid for once, whoever dies, sleeps or is late."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from faults.harness import Story, check_invariants
from postgres import is_there, shared_server
from support import connect, make_staging, rows, submitted

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator

pytestmark = pytest.mark.skipif(not is_there(), reason="no PostgreSQL is installed here")


@pytest.fixture
def ledger() -> str:
    """Return the address of a ledger of its own."""
    return shared_server().new_url()


def test_whole_story(emulator: Emulator, home: Path, ledger: str) -> None:
    """With a shared ledger the whole way from the rows to their answers is as with a file, which is not made."""
    story = Story(emulator, home, settings={"ledger": ledger})
    story.go_on()
    check_invariants(story)
    assert not (home / "ledger.sqlite").exists()
    story.close()


def test_same_content_from_another_home(emulator: Emulator, tmp_path: Path, ledger: str) -> None:
    """What one home submitted another one has as well, by its id and by its content, and reads its answers."""
    with (
        connect(emulator, tmp_path / "one", ledger=ledger) as one,
        connect(emulator, tmp_path / "two", ledger=ledger) as two,
    ):
        make_staging(one)
        make_staging(two)
        submission_id = submitted(one)
        (again,) = rows(two, "FROM mistral_batch_submit('staging')")
        assert (again["submission_id"], again["reused"]) == (submission_id, True)
        two.execute("FROM mistral_batch_wait($id, timeout_seconds := 60)", {"id": submission_id})
        found = [
            rows(con, f"SELECT custom_id, outcome FROM mistral_batch_results('{submission_id}') ORDER BY custom_id")
            for con in (one, two)
        ]
        assert found[0] == found[1] == [{"custom_id": str(number), "outcome": "ok"} for number in range(3)]
    assert emulator.witness()["creates_received"] == 1
