"""What a careful user of DuckDB writes by hand, with the SDK for the API: files by COPY, answers by read_json.

It checks nothing: a custom_id that is NULL, repeated or too long is sent, and of the answers one that is missing,
repeated or foreign, an error, or a list of chunks in place of a text passes without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks import loop
from benchmarks.shared import MAX_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

#: COPY begins another file once one has so many bytes, and each may come to hold a little more.
FILE_BYTES = MAX_BYTES - 32_000_000


def submit(sdk: Any, connection: duckdb.DuckDBPyConnection, table: str, work: Path) -> list[str]:
    """Write a table's request lines, and upload the files; return their ids."""
    folder = work / f"{table}-requests"
    connection.execute(
        f"COPY (SELECT custom_id, {{'messages': [{{'role': 'user', 'content': prompt}}]}} AS body FROM {table}) "
        f"TO '{folder}' (FORMAT json, FILE_SIZE_BYTES {FILE_BYTES})"
    )
    return [loop.upload_file(sdk, path) for path in sorted(folder.iterdir())]


def join(sdk: Any, connection: duckdb.DuckDBPyConnection, table: str, file_ids: list[str], work: Path) -> None:
    """Download output files, and join their answers to the table whose rows were sent."""
    for number, file_id in enumerate(file_ids):
        loop.download(sdk, file_id, work / f"{table}-output-{number}.jsonl")
    connection.execute(
        f"CREATE TEMP TABLE joined AS SELECT {table}.*, response.body.choices[1].message.content AS content "
        f"FROM {table} JOIN read_json('{work}/{table}-output-*.jsonl', format = 'newline_delimited', columns = "
        "{custom_id: 'VARCHAR', response: 'STRUCT(body STRUCT(choices STRUCT(message STRUCT(content VARCHAR))[]))'}) "
        "USING (custom_id)"
    )
