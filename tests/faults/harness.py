"""One story, from the staging table to the results, that can be told under any fault; and what must be true after."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import duckdb
from support import KEY, connect, make_staging, rows

from duckdb_mistral.results.responses import lines_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

    from duckdb_mistral.emulator import Emulator

#: Short enough for tests; a busy machine answers well within them.
QUICK = {"deadline_seconds": 3, "reconcile_seconds": 0.5}
CREATE = {"method": "POST", "path": "/v1/batch/jobs"}
UPLOAD = {"method": "POST", "path": "/v1/files"}
LIST = {"method": "GET", "path": "/v1/batch/jobs"}
POLL = {"method": "GET", "path": "/v1/batch/jobs/[^/]+"}
DOWNLOAD = {"method": "GET", "path": "/v1/files/[^/]+/content"}
#: A job of which nothing is told yet, although it has ended.
NOTHING: dict[str, Any] = {"completed_requests": 0, "succeeded_requests": 0, "output_file": None}
RUNNING: dict[str, Any] = {"status": "RUNNING", "completed_at": None}
#: Ends that are told too early, or taken back, and come right later: whoever reads them has to ask again.
LATE: tuple[dict[str, Any], ...] = (
    NOTHING,
    NOTHING | {"status": "EXPIRED"},
    NOTHING | RUNNING,
    RUNNING,
    {"completed_requests": 1, "succeeded_requests": 1},
)
#: After these the same statement is sent anew where the API says so again.
ENDED_BADLY = ("CANCELLED", "FAILED", "TIMEOUT_EXCEEDED")
#: How often the checks look where the server gives no answer.
LOOKS = 5
OCTETS = {"content-type": "application/octet-stream"}


@dataclass
class Story:
    """A staging table of so many rows, and a user who goes on until all answers are there."""

    emulator: Emulator
    home: Path
    row_count: int = 10
    settings: dict[str, Any] = field(default_factory=dict)
    arguments: str = ""
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Open a connection with the staging table."""
        self.con = connect(self.emulator, self.home, **QUICK | self.settings)
        make_staging(self.con, self.row_count)

    def close(self) -> None:
        """Close the connection."""
        self.con.close()

    def submit(self) -> list[dict[str, Any]]:
        """Run the submit statement."""
        return self._told(lambda: rows(self.con, f"FROM mistral_batch_submit('staging'{self.arguments})"))

    def wait(self) -> list[dict[str, Any]]:
        """Wait for every submission to end; a statement of its own may name the id."""
        return self._told(
            lambda: rows(
                self.con,
                "SELECT w.* FROM (SELECT DISTINCT submission_id AS id FROM mistral_batch_status()) s, "
                "LATERAL (FROM mistral_batch_wait(s.id, timeout_seconds := 30)) w",
            )
        )

    def results(self, arguments: str = "") -> list[dict[str, Any]]:
        """Read all results."""
        return self._told(lambda: rows(self.con, f"FROM mistral_batch_results({arguments}) ORDER BY custom_id"))

    def go_on(self, seconds: float = 60.0) -> list[dict[str, Any]]:
        """Do what a user does who reads the sentences: the same statements again, until all answers are there."""
        return self._again(lambda: (self.submit(), self.wait(), self.results())[-1], seconds)

    def read_on(self, seconds: float = 60.0) -> list[dict[str, Any]]:
        """Read all results, again where a server was too slow; nothing is submitted."""
        return self._again(self.results, seconds)

    def _again(self, call: Callable[[], list[dict[str, Any]]], seconds: float) -> list[dict[str, Any]]:
        until = time.monotonic() + seconds
        while True:
            try:
                return call()
            except duckdb.Error:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def _told(self, call: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        try:
            return call()
        except duckdb.Error as error:
            self.said.append(str(error))
            raise


def late_end(dice: Random) -> dict[str, Any]:
    """Return a rule by which a few polls tell an end too early, or take it back."""
    return POLL | {"change": dice.choice(LATE), "skip": dice.randrange(3), "times": dice.randrange(1, 4)}


def bad_end(dice: Random) -> dict[str, Any]:
    """Return a rule by which one poll tells a bad end that is none."""
    change = NOTHING | {"status": dice.choice(ENDED_BADLY)}
    return POLL | {"change": change, "skip": dice.randrange(3), "times": 1}


def check_invariants(story: Story, *, jobs: int = 1, beside: int = 0) -> None:
    """Check the seven invariants of every case, once the story has come to its end.

    `beside` are the jobs of others in the workspace, of one request each.
    """
    witness = story.emulator.witness()
    asked = witness["requests"]
    # I1: nothing is paid for twice.
    assert witness["rows_accepted_more_than_once"] == 0
    assert witness["rows_accepted"] == story.row_count + beside
    assert witness["jobs_stored"] == jobs + beside
    # I2: every job of the server is in the ledger.
    known = {row["job_id"] for row in rows(story.con, "FROM mistral_batch_status()")}
    there = {row["job_id"] for row in _patiently(lambda: rows(story.con, "FROM mistral_batch_jobs()"))}
    assert known <= there
    assert len(known) == len(there) - beside
    # I3: every row comes back exactly once.
    found = story.results()
    assert [row["custom_id"] for row in found] == sorted(str(number) for number in range(story.row_count))
    # I4: what is kept is whole, and no scratch is left.
    kept = {path for path in (story.home / "results").iterdir() if path.suffix == ".parquet"}
    assert len(kept) == jobs
    assert not any(path.name.startswith("partial-") for path in kept)
    assert set((story.home / "results").iterdir()) == kept | {line for path in kept for line in lines_of(path)}
    # I5: the key is nowhere.
    assert_no_key(story.home, *story.said)
    # I6: nothing was cancelled or deleted.
    assert not {"cancel", "delete_file"} & set(asked)


def _patiently(look: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Look again where a busy machine did not answer within the story's short deadline."""
    for _ in range(LOOKS):
        try:
            return look()
        except duckdb.Error as error:
            if "gave no answer" not in str(error):
                raise
    return look()


def assert_no_key(directory: Path, *texts: str) -> None:
    """Check that the key is in no file under a directory and in none of the texts."""
    assert not any(KEY in text for text in texts)
    for path in directory.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
