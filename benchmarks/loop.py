"""The loop that people write by hand with the SDK: one request at a time, and whole files in memory."""

from __future__ import annotations

import io
import json
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

POLL_SECONDS = 0.5
IN_FLIGHT = ("QUEUED", "RUNNING", "CANCELLATION_REQUESTED")


def submit(sdk: Any, rows: list[tuple[str, str]], max_bytes: int) -> list[str]:
    """Upload the requests, in files of at most `max_bytes`, as the API asks; return the files' ids."""
    file_ids = []
    buffer = io.BytesIO()
    for custom_id, prompt in rows:
        request = {"custom_id": custom_id, "body": {"messages": [{"role": "user", "content": prompt}]}}
        line = json.dumps(request).encode() + b"\n"
        if buffer.tell() + len(line) > max_bytes:
            file_ids.append(upload(sdk, buffer.getvalue()))
            buffer = io.BytesIO()
        buffer.write(line)
    file_ids.append(upload(sdk, buffer.getvalue()))
    return file_ids


def upload(sdk: Any, content: bytes) -> str:
    """Upload one file; return its id."""
    uploaded = sdk.files.upload(file={"file_name": "requests.jsonl", "content": content}, purpose="batch")
    file_id: str = uploaded.id
    return file_id


def create(sdk: Any, file_id: str) -> str:
    """Create the job of a file; return its id."""
    job = sdk.batch.jobs.create(input_files=[file_id], model="mistral-small-latest", endpoint="/v1/chat/completions")
    job_id: str = job.id
    return job_id


def wait(sdk: Any, job_id: str) -> str:
    """Return the id of a job's output file, once it has one."""
    while (job := sdk.batch.jobs.get(job_id=job_id)).status in IN_FLIGHT:
        time.sleep(POLL_SECONDS)
    output_file: str = job.output_file
    return output_file


def read(sdk: Any, file_id: str, path: Path) -> list[dict[str, Any]]:
    """Download an output file; return its results."""
    response = sdk.files.download(file_id=file_id)
    with path.open("wb") as file:
        for chunk in response.iter_bytes():
            file.write(chunk)
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def make_table(connection: duckdb.DuckDBPyConnection, results: list[dict[str, Any]]) -> None:
    """Make the table answers of custom_id and content, the quick way: by Arrow."""
    answers = pa.table(
        {
            "custom_id": [result["custom_id"] for result in results],
            "content": [result["response"]["body"]["choices"][0]["message"]["content"] for result in results],
        }
    )
    connection.register("arrow_answers", answers)
    connection.execute("CREATE TEMP TABLE answers AS FROM arrow_answers")


def staged(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    """Return the rows of the table staging."""
    rows: list[tuple[str, str]] = connection.execute("SELECT custom_id, prompt FROM staging").fetchall()
    return rows
