"""The documented loop with the SDK: json, one request at a time, and whole files in memory; others share parts of it.

It checks nothing, and keeps (custom_id, content).
"""

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


def upload_file(sdk: Any, path: Path) -> str:
    """Upload a file from the disk, which is read while it is sent; return its id."""
    with path.open("rb") as content:
        uploaded = sdk.files.upload(file={"file_name": path.name, "content": content}, purpose="batch")
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


def download(sdk: Any, file_id: str, path: Path) -> None:
    """Download a file while it comes."""
    response = sdk.files.download(file_id=file_id)
    with path.open("wb") as file:
        for chunk in response.iter_bytes():
            file.write(chunk)


def read(sdk: Any, file_id: str, path: Path) -> list[tuple[str, str]]:
    """Download an output file; return the custom_id and the content of each of its lines."""
    download(sdk, file_id, path)
    with path.open(encoding="utf-8") as lines:
        return [
            (result["custom_id"], result["response"]["body"]["choices"][0]["message"]["content"])
            for result in map(json.loads, lines)
        ]


def join(connection: duckdb.DuckDBPyConnection, table: str, custom_ids: list[str], contents: list[str]) -> None:
    """Make the table joined: the table whose rows were sent, and their contents, which come by Arrow."""
    connection.register("arrow_answers", pa.table({"custom_id": custom_ids, "content": contents}))
    connection.execute(
        f"CREATE TEMP TABLE joined AS SELECT {table}.*, content FROM {table} JOIN arrow_answers USING (custom_id)"
    )


def staged(connection: duckdb.DuckDBPyConnection, table: str) -> list[tuple[str, str]]:
    """Return custom_id and prompt of a table's rows."""
    rows: list[tuple[str, str]] = connection.execute(f"SELECT custom_id, prompt FROM {table}").fetchall()
    return rows
