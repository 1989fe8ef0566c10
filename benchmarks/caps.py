"""Contenders without a rival: what a client of two rows gives to answers that no honest server sends."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from benchmarks.clock import Clock
from benchmarks.shared import KEY

if TYPE_CHECKING:
    from pathlib import Path

#: Of two answers, the long one is just short of the longest line that is read as one.
LONG_BYTES = 130_000_000
FILE_ID = "3f2a9c1e-0000-4000-8000-00000000000a"


def caps_answer(work: Path, given: dict[str, Any]) -> Clock:
    """Download a file for two requests, or list the jobs, from a server that answers in one strange way."""
    from duckdb_mistral.api.client import BatchClient
    from duckdb_mistral.api.listing import read
    from duckdb_mistral.errors import MistralBatchError
    from duckdb_mistral.runtime.retry_policy import Retry
    from duckdb_mistral.settings import Settings

    deadline = given["deadline_seconds"]
    settings = Settings.resolve({"api_key": KEY, "server_url": given["url"], "deadline_seconds": deadline}, {})
    path = work / "answers.jsonl"
    said = ""
    with BatchClient(settings, retry=Retry(budget_seconds=0)) as client:
        clock = Clock()
        with clock.step("answer"):
            try:
                if given["lists"]:
                    read(client)
                else:
                    client.download(FILE_ID, path, 2)
            except MistralBatchError as error:
                said = str(error)
    clock.figures |= {"said": said, "bytes": path.stat().st_size if path.exists() else 0}
    return clock


def caps_line(work: Path, given: dict[str, Any]) -> Clock:
    """Verify two results, of which one is as long as a line may be."""
    from duckdb_mistral.duck.engine import own_engine
    from duckdb_mistral.jobs.job import Job, Step
    from duckdb_mistral.jobs.report import JobReport
    from duckdb_mistral.results.convert import ResultFiles, write_results

    answers, requests = work / "answers.jsonl", work / "requests.jsonl"
    with answers.open("w") as file, requests.open("w") as sent:
        for custom_id, length in (("0", 10), ("1", given["line_bytes"])):
            body = {"choices": [{"message": {"content": "x" * length}, "finish_reason": "stop"}]}
            file.write(json.dumps({"custom_id": custom_id, "response": {"status_code": 200, "body": body}}) + "\n")
            sent.write(json.dumps({"custom_id": custom_id, "body": {}}) + "\n")
    del body
    report = JobReport(job_id=FILE_ID, status="SUCCESS", total_requests=2, completed_requests=2, succeeded_requests=2)
    job = Job(
        key=1,
        submission_id=FILE_ID,
        part=1,
        model="mistral-small-latest",
        endpoint="/v1/chat/completions",
        server_url="",
        step=Step.CREATED,
        request_count=2,
        input_bytes=requests.stat().st_size,
        created_here_at=0,
        report=report,
    )
    said = ""
    with own_engine(work / "spill") as engine:
        engine.execute("SELECT 1").fetchall()
        clock = Clock()
        with clock.step("verify"):
            try:
                files = ResultFiles(answers=(answers,), submitted=requests, output=None)
                found = write_results(engine, job, files, work / "results.parquet", partial=False)
                said = f"{found.tally.held} rows"
            except Exception as error:  # noqa: BLE001  it is what is measured
                said = f"{type(error).__name__}: {error}"
    with suppress(OSError):
        answers.unlink()
    clock.figures |= {"said": said[:200], "bytes": given["line_bytes"]}
    return clock
