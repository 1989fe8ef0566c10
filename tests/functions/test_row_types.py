"""The rows that the functions return: every field of the contract, whatever the API said."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from duckdb_mistral.functions import row_types
from duckdb_mistral.jobs.job import Job, Step
from duckdb_mistral.jobs.report import JobReport

JOB = Job(
    key=1,
    submission_id="submission",
    part=2,
    model="m",
    endpoint="/v1/chat/completions",
    server_url="https://example.com",
    step=Step.PLANNED,
    request_count=10,
    input_bytes=500,
    created_here_at=0,
    checked_at=7,
)


def created(status: str = "RUNNING", **report: int) -> Job:
    """Return a job that the API reports."""
    return JOB.evolve(step=Step.CREATED, report=JobReport(job_id="job", status=status, created_at=5, **report))  # type: ignore[arg-type]


@pytest.mark.parametrize("job", [JOB, created(), JOB.evolve(step=Step.HELD, message="why")])
def test_rows_have_every_field(job: Job) -> None:
    """Each row has exactly the fields of its type, and Arrow takes them."""
    assert set(row_types.submit_row(job, True)) == {field.name for field in row_types.SUBMIT}
    assert set(row_types.status_row(job)) == {field.name for field in row_types.STATUS}
    assert pa.array([row_types.submit_row(job, True)], row_types.SUBMIT).to_pylist()[0]["part"] == 2
    assert pa.array([row_types.status_row(job)], row_types.STATUS).to_pylist()[0]["submission_id"] == "submission"
    assert set(row_types.reported(JobReport(job_id="a", status="b"))) == {field.name for field in row_types.WORKSPACE}
    assert set(row_types.model_row({})) == {field.name for field in row_types.MODELS}


@pytest.mark.parametrize(
    ("job", "progress"),
    [
        (JOB, 0.0),
        (created(), 0.0),
        (created(completed_requests=5), 0.5),
        (created(total_requests=20, completed_requests=5), 0.25),
        (created(completed_requests=50), 1.0),
        (created("SUCCESS"), 1.0),
        (created("FAILED", completed_requests=4), 0.4),
        (created().evolve(request_count=0), 0.0),
    ],
)
def test_progress(job: Job, progress: float) -> None:
    """Progress is between 0 and 1, by our own count of requests where the API has none yet."""
    assert row_types.status_row(job)["progress"] == progress


def test_total_before_the_api_counts() -> None:
    """The API's total may be 0 at first; the row tells our own count."""
    assert row_types.status_row(created(total_requests=0))["total_requests"] == 10
    assert row_types.submit_row(created(total_requests=0), False)["total_requests"] == 10


def test_errors() -> None:
    """The job's errors are the API's, and what this package has to say of it."""
    assert row_types.status_row(JOB.evolve(message="no room"))["errors"] == [{"message": "no room", "count": 1}]
    report = JobReport(job_id="a", status="FAILED", errors=(("bad", 3),))
    assert row_types.status_row(JOB.evolve(report=report, message="x"))["errors"] == [
        {"message": "bad", "count": 3},
        {"message": "x", "count": 1},
    ]


def test_model_row() -> None:
    """A model card is read as far as it is what the API's text says."""
    row = row_types.model_row(
        {
            "id": "a",
            "capabilities": {"vision": True, "completion_chat": True, "audio": False, "odd": "yes"},
            "aliases": ["b", 7],
            "max_context_length": 5,
            "default_model_temperature": 1,
        }
    )
    assert (row["capabilities"], row["aliases"]) == (["completion_chat", "vision"], ["b"])
    assert (row["max_context_length"], row["default_model_temperature"], row["name"]) == (5, 1.0, None)
    odd = row_types.model_row({"id": 5, "capabilities": [], "aliases": "x", "max_context_length": "5"})
    assert (odd["id"], odd["capabilities"], odd["aliases"], odd["max_context_length"]) == (None, [], [], None)


def test_sql_types() -> None:
    """Arrow types have the DuckDB types that stand for them."""
    assert row_types.sql_type(row_types.STATUS.field("metadata").type) == "MAP(VARCHAR, VARCHAR)"
    assert row_types.sql_type(row_types.STATUS.field("errors").type) == 'STRUCT("message" VARCHAR, "count" BIGINT)[]'
    assert row_types.columns(row_types.SUBMIT)["created_at"] == "TIMESTAMPTZ"


@pytest.mark.parametrize("number", [10**30, -(10**30), 2**63, 10**400, True, 1.5, "5", [5], None])
def test_odd_numbers_of_a_model(number: Any) -> None:
    """A number of a model card that no column holds is NULL, and so is what is no number."""
    card = {"id": "m", "max_context_length": number, "default_model_temperature": number}
    row = row_types.model_row(card)
    assert row["max_context_length"] is None
    table = pa.array([row], row_types.MODELS)
    assert table[0]["id"].as_py() == "m"
    plain = isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < 10**100
    assert row["default_model_temperature"] == (float(number) if plain else None)
