"""The loop of somebody who knows what is quick: orjson, files written and downloaded line by line, answers by Arrow.

It checks nothing, and keeps (custom_id, content): an answer that has no text ends it with a KeyError or a TypeError,
and one that is missing, repeated or foreign passes without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks import loop
from benchmarks.shared import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import duckdb

#: Rows that are fetched at once.
FETCHED = 20_480
CHUNK_BYTES = 1 << 20


def submit(sdk: Any, connection: duckdb.DuckDBPyConnection, table: str, work: Path) -> list[str]:
    """Write a table's request lines into files as large as the API takes, and upload them; return their ids."""
    paths = _written(connection, table, work)
    return [loop.upload_file(sdk, path) for path in paths]


def join(sdk: Any, connection: duckdb.DuckDBPyConnection, table: str, file_ids: list[str], _: Path) -> None:
    """Read output files while they come, and join their answers to the table whose rows were sent."""
    import orjson

    custom_ids, contents = [], []
    for file_id in file_ids:
        for line in _lines(sdk, file_id):
            result = orjson.loads(line)
            custom_ids.append(result["custom_id"])
            contents.append(result["response"]["body"]["choices"][0]["message"]["content"])
    loop.join(connection, table, custom_ids, contents)


def _written(connection: duckdb.DuckDBPyConnection, table: str, work: Path) -> list[Path]:
    import orjson

    paths = [work / f"{table}-0.jsonl"]
    file, size = paths[0].open("wb"), 0
    found = connection.execute(f"SELECT custom_id, prompt FROM {table}")
    while rows := found.fetchmany(FETCHED):
        for custom_id, prompt in rows:
            request = {"custom_id": custom_id, "body": {"messages": [{"role": "user", "content": prompt}]}}
            line = orjson.dumps(request, option=orjson.OPT_APPEND_NEWLINE)
            size += len(line)
            if size > MAX_BYTES:
                file.close()
                paths.append(work / f"{table}-{len(paths)}.jsonl")
                file, size = paths[-1].open("wb"), len(line)
            file.write(line)
    file.close()
    return paths


def _lines(sdk: Any, file_id: str) -> Iterator[bytes]:
    """Yield the lines of a file while it is downloaded; only a line feed ends one."""
    rest = b""
    for chunk in sdk.files.download(file_id=file_id).iter_bytes(CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest
