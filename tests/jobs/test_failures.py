"""What jobs leave without an answer is seen wherever they are told of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support import connect, ended_job

from duckdb_mistral.batches.describe import describe
from duckdb_mistral.jobs.failures import what_to_do
from duckdb_mistral.jobs.job import Step

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.emulator import Emulator
    from duckdb_mistral.jobs.job import Job

FAILING = """SELECT range AS custom_id,
if(range < 2, '{"prompt": "x"}', '{"messages": [{"role": "user", "content": "hi"}]}')::JSON AS body FROM range(3)"""


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (ended_job(3), "3 of 3 requests are done."),
        (ended_job(3, failed_requests=2), "3 of 3 requests are done, and 2 failed."),
        (ended_job(3, completed=1, status="CANCELLED"), "1 of 3 requests are done, and 2 have no answer."),
        (ended_job(2, completed=1, status="TIMEOUT_EXCEEDED"), "1 of 2 requests are done, and 1 has no answer."),
        (
            ended_job(3, completed=2, status="CANCELLED", failed_requests=1),
            "2 of 3 requests are done, and 1 failed and 1 has no answer.",
        ),
        (
            ended_job(3, completed=1, status="EXPIRED", completed_at=1),
            "1 of 3 requests are done, and 2 have no answer.",
        ),
        (ended_job(3, completed=0, status="FAILED"), "0 of 3 requests are done, and 3 have no answer."),
        (ended_job(3, completed=2, status="RUNNING", failed_requests=1), "2 of 3 requests are done, and 1 failed."),
    ],
)
def test_described(job: Job, said: str) -> None:
    """How far a job is tells what failed of it, and once it has ended what nothing will come of."""
    assert describe([job]).endswith(said)


def test_what_to_do() -> None:
    """What failed of ended jobs is told with the statements that show it and send it again; nothing where none did."""
    assert what_to_do([ended_job(3), ended_job(3, status="RUNNING", failed_requests=2)]) is None
    assert what_to_do([ended_job(3, completed=0).evolve(step=Step.ANSWERED, report=None)]) is None
    assert what_to_do([ended_job(3, failed_requests=2), ended_job(3)]) == (
        "Of 6 requests, 2 failed. FROM mistral_batch_results('submission') WHERE outcome <> 'ok' shows which and why, "
        "and FROM mistral_batch_retry('submission') sends them again."
    )
    many = [ended_job(1, completed=0, status="FAILED").evolve(submission_id=f"s{number}") for number in range(5)]
    told = what_to_do(many)
    assert told is not None
    assert told.count("mistral_batch_retry") == 3
    assert told.startswith("Of 5 requests, 5 have no answer.")
    assert told.endswith("the same goes for 2 more.")


def test_a_wait(emulator: Emulator, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wait ends with what failed, and what to do about it; a second one says so again."""
    with connect(emulator, home) as con:
        (job,) = con.execute("FROM mistral_batch_submit($source)", {"source": FAILING}).fetchall()
        for _ in range(2):
            con.execute("FROM mistral_batch_wait($id)", {"id": job[0]}).fetchall()
            lines = capsys.readouterr().err.splitlines()
            assert lines[-2] == f"Job {job[1]} is SUCCESS: 3 of 3 requests are done, and 2 failed."
            assert lines[-1].startswith(f"Of 3 requests, 2 failed. FROM mistral_batch_results('{job[0]}') WHERE")
        assert len(con.execute(f"FROM mistral_batch_results('{job[0]}') WHERE outcome <> 'ok'").fetchall()) == 2
