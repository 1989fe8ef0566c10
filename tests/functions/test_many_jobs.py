"""A status of very many jobs: the same rows as those that are made one by one."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa
import pytest
from support import connect, make_staging, submitted

from duckdb_mistral.batches.track import PolledAll
from duckdb_mistral.functions import many_jobs, row_types
from duckdb_mistral.jobs.job import Part, Step, Submission
from duckdb_mistral.jobs.report import JobReport
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.ledger import Ledger
from duckdb_mistral.state.records import reported_values
from duckdb_mistral.state.tables import jobs

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator


WORDS = (
    "SUCCESS",
    " success ",
    "RUNNING",
    "QUEUED",
    "FAILED",
    "TIMEOUT-EXCEEDED",
    "CANCELLED",
    "SHINY",
    "Success\u00a0",
)
TEXTS = ("", "plain", "two\nlines", "é\u2028'\"", "\U0001f600", "half \ud83d", "$name", "\\ud83d")
MESSAGES = (None, None, "", "waits for room", "The files hold 1,234 answers to what was never sent.")


def filled(home: Path, url: str, seed: int, count: int) -> Ledger:
    """Return a ledger with jobs at every step, with what an API may tell of them."""
    dice = random.Random(seed)
    ledger = Ledger(Home(home))
    for number, size in enumerate((count // 2, count - count // 2)):
        made = Submission(
            submission_id=str(uuid4()),
            identity=str(number),
            server_url=url,
            account="account",
            endpoint="/v1/chat/completions",
            models=("é'\"",),
            timeout_hours=24,
            metadata=(),
            request_count=size,
            input_bytes=size,
            created_at=2 - number,
        )
        parts = [
            Part(submission_id=made.submission_id, part=part + 1, request_count=dice.choice([0, 7]), input_bytes=1)
            for part in range(size)
        ]
        assert ledger.add(made, parts)
    with ledger.database.writing() as connection:
        for job in ledger.jobs():
            values: dict[str, Any] = {"step": dice.choice(list(Step)), "message": dice.choice(MESSAGES)}
            if dice.random() < 0.6:
                values |= reported_values(report(dice))
            connection.execute(jobs.update().where(jobs.c.key == job.key).values(**values))
    return ledger


def report(dice: random.Random) -> JobReport:
    """Return what an API may tell of a job."""
    times: list[int | None] = [None, 0, 1_700_000_000_000_000]
    texts = dice.sample(TEXTS, 4)
    return JobReport(
        job_id=str(uuid4()),
        status=dice.choice(WORDS),
        total_requests=dice.choice([0, 3, 7, 9]),
        completed_requests=dice.choice([0, 3, 7, 9]),
        succeeded_requests=dice.choice([0, 3]),
        failed_requests=dice.choice([0, 3]),
        created_at=dice.choice(times),
        started_at=dice.choice(times),
        completed_at=dice.choice(times),
        errors=tuple((text, dice.choice([1, 2, 2**62])) for text in texts[: dice.randrange(3)]),
        metadata=tuple((text, text) for text in texts[: dice.randrange(4)]),
        output_file=dice.choice([None, "out"]),
        error_file=dice.choice([None, "'"]),
    )


def one_by_one(ledger: Ledger) -> pa.Array:
    """Return the rows as they are made of objects."""
    return pa.array([row_types.status_row(job) for job in ledger.jobs()], row_types.STATUS)


@pytest.mark.parametrize("seed", range(4))
def test_same_rows_as_one_by_one(seed: int, home: Path) -> None:
    """Whatever the ledger holds, the columns have the rows that the objects make, in their order."""
    ledger = filled(home, "https://example.com", seed, 300)
    found = many_jobs.status_rows(ledger.columns(), PolledAll())
    assert found.to_pylist() == one_by_one(ledger).to_pylist()
    assert found.type == row_types.STATUS


def test_status_by_columns(emulator: Emulator, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A status without an id asks for what has not ended and shows it as it is now, however many jobs there are."""
    filled(home, emulator.url, 7, 10)
    with connect(emulator, home) as con:
        make_staging(con)
        submission_id = submitted(con)
        con.execute("FROM mistral_batch_wait($id)", {"id": submission_id}).fetchall()
        shown = "SELECT * EXCLUDE (checked_at) FROM mistral_batch_status()"
        few = con.execute(shown).fetchall()
        monkeypatch.setattr(many_jobs, "MANY", 1)
        assert con.execute(shown).fetchall() == few
        checked = "SELECT max(checked_at) FROM mistral_batch_status()"
        assert con.execute(checked).fetchone() is not None
