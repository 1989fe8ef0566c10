"""What contenders share: the source, the settings, and what is imported before the clock starts."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from benchmarks import data

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from duckdb_mistral.jobs.job import Job

KEY = "a-key-of-the-benchmarks"
MAX_BYTES = 512_000_000


def source_of(given: dict[str, Any]) -> str:
    """Return the table staging, or rows that are made while they are read."""
    if "database" in given:
        return "staging"
    return f"({data.staging_sql(given['rows'])})"


def settings_of(work: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Return settings under which all rows are one job, as far as the API's limit of bytes goes."""
    return {
        "api_key": KEY,
        "home": work / "home",
        "max_requests_per_job": given["rows"],
        "max_pending_requests": 100_000_000,
        "max_bytes_per_file": MAX_BYTES,
    }


def import_the_rest() -> None:
    """Import what the SDK and Arrow import where they are first used."""
    from mistralai.client import Mistral

    pa.array([1])  # pandas, where that is installed
    with Mistral(api_key=KEY) as sdk:
        assert sdk.files
        assert sdk.batch.jobs


def ended_job(rows: int) -> Job:
    """Return a job of chat requests that has ended well."""
    from duckdb_mistral.jobs.job import Job, Step
    from duckdb_mistral.jobs.report import JobReport

    report = JobReport(
        job_id="11111111-0000-4000-8000-000000000000",
        status="SUCCESS",
        total_requests=rows,
        completed_requests=rows,
        succeeded_requests=rows,
    )
    return Job(
        key=1,
        submission_id="22222222-0000-4000-8000-000000000000",
        part=1,
        model="mistral-small-latest",
        endpoint="/v1/chat/completions",
        server_url="http://127.0.0.1:1",
        step=Step.CREATED,
        request_count=rows,
        input_bytes=0,
        created_here_at=0,
        report=report,
    )


@contextmanager
def sdk_at(url: str) -> Iterator[Any]:
    """Open the SDK."""
    from mistralai.client import Mistral

    with Mistral(api_key=KEY, server_url=url, timeout_ms=600_000) as sdk:
        yield sdk


def timed(owner: type, name: str) -> list[float]:
    """Let a method keep the seconds of its calls in the list that is returned."""
    calls: list[float] = []
    method = getattr(owner, name)

    def timed(*positional: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return method(*positional, **named)
        finally:
            calls.append(time.perf_counter() - started)

    setattr(owner, name, timed)
    return calls
