"""Submissions and reports that tests of the ledger write down."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from duckdb_mistral.jobs.job import Part, Step, Submission
from duckdb_mistral.jobs.report import JobReport

if TYPE_CHECKING:
    from duckdb_mistral.state.ledger import Ledger

JOB_ID = "3f2a9c1e-0000-4000-8000-00000000000a"


def submission(**changes: Any) -> Submission:
    """Return a submission of two parts."""
    made = Submission(
        submission_id=str(uuid4()),
        identity="identity",
        server_url="https://example.com",
        account="account",
        endpoint="/v1/chat/completions",
        models=("a", "b"),
        timeout_hours=24,
        metadata=(("team", "é'\""),),
        request_count=30,
        input_bytes=300,
        created_at=1,
    )
    return replace(made, **changes)


def parts_of(made: Submission) -> list[Part]:
    """Return its parts."""
    return [Part(submission_id=made.submission_id, part=number, request_count=15, input_bytes=150) for number in (1, 2)]


def added(ledger: Ledger, **changes: Any) -> Submission:
    """Add a submission and return it."""
    made = submission(**changes)
    assert ledger.add(made, parts_of(made))
    return made


def report(**changes: Any) -> JobReport:
    """Return a job with something in every field."""
    made = JobReport(
        job_id=JOB_ID,
        status="RUNNING",
        endpoint="/v1/chat/completions",
        model="a",
        total_requests=15,
        created_at=1,
        errors=(("bad\u2028", 2),),
        metadata=(("team", "é'\""),),
        input_files=("in",),
        output_file="out",
    )
    return replace(made, **changes)


def filled(ledger: Ledger, count: int) -> list[JobReport]:
    """Add so many jobs that run to a ledger; return what the API told of them."""
    made = Submission(
        submission_id="of-many",
        identity="identity",
        server_url="https://example.com",
        account="account",
        endpoint="/v1/chat/completions",
        models=("a",),
        timeout_hours=24,
        metadata=(),
        request_count=count,
        input_bytes=count,
        created_at=1,
    )
    parts = [Part(submission_id="of-many", part=number + 1, request_count=1, input_bytes=1) for number in range(count)]
    assert ledger.add(made, parts)
    found = [JobReport(job_id=f"job-{number}", status="RUNNING", total_requests=1) for number in range(count)]
    with ledger.kept_open():
        for job, report in zip(ledger.jobs(), found, strict=True):
            assert ledger.move(job, Step.SENDING)
            assert ledger.created(job.evolve(step=Step.SENDING), report)
    return found
