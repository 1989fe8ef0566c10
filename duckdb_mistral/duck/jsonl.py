"""Raw lines, split at newline bytes, whatever they contain."""

from __future__ import annotations

import mmap
from os import SEEK_END
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from duckdb_mistral.duck.vectors import buffer, vector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import duckdb

#: Raw lines are handed to DuckDB in batches of about this many bytes.
BATCH_BYTES = 16 << 20
#: Request lines come in smaller batches, because DuckDB's work on JSON takes many times the memory of its batch.
REQUEST_BYTES = 1 << 20
#: The byte order mark that some programs write before UTF-8.
BOM = b"\xef\xbb\xbf"
#: How read_json reads of lines the custom_id alone. Unless told that they are records, it reads lines of which a single
#: column is asked for in more than twice the time.
JUST_IDS = "format = 'newline_delimited', records = true, columns = {custom_id: 'VARCHAR'}"
LINES = pa.schema([("line", pa.string()), ("start", pa.int64())])


def raw_lines(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield a file's lines, split only at newline bytes, with the byte at which each starts.

    In a line that is not UTF-8 the bad bytes are replaced. A byte order mark is left out.
    """
    if not path.stat().st_size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = len(BOM) if data[: len(BOM)] == BOM else 0
        while start < len(data):
            end = data.find(b"\n", min(start + BATCH_BYTES, len(data)))
            end = len(data) if end < 0 else end + 1
            yield _batch(data[start:end], start)
            start = end


def cut_to_lines(path: Path) -> None:
    """Truncate a file after its last newline; a file without newlines is removed, and a missing one is ignored."""
    try:
        with path.open("r+b") as file:
            end = file.seek(0, SEEK_END)
            while end:
                start = max(end - REQUEST_BYTES, 0)
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                if newline >= 0:
                    file.truncate(start + newline + 1)
                    return
                end = start
    except FileNotFoundError:
        return
    path.unlink()


def register_requests(engine: duckdb.DuckDBPyConnection, name: str, paths: Iterable[Path]) -> None:
    """Let one of our own connections read the lines of request files, once, as `name`, whatever their size."""
    engine.register(name, pa.RecordBatchReader.from_batches(LINES, _request_lines(paths)))


def _request_lines(paths: Iterable[Path]) -> Iterator[pa.RecordBatch]:
    for path in paths:
        start = 0
        with path.open("rb") as file:  # read, not mapped, because mapped pages count as memory of this process
            while block := file.read(REQUEST_BYTES):
                block += file.readline()
                yield _batch(block, start)
                start += len(block)


def _batch(block: bytes, start: int) -> pa.RecordBatch:
    """Return the lines of a block, each with its newline; no line is handled on its own."""
    ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n")) + 1
    bounds = np.concatenate(([0], ends, [] if block.endswith(b"\n") else [len(block)])).astype(np.int64)
    lines = pa.StringArray.from_buffers(len(bounds) - 1, buffer(bounds.astype(np.int32)), buffer(block))
    try:
        lines.validate(full=True)
    except pa.ArrowInvalid:
        pairs = zip(bounds[:-1], bounds[1:], strict=True)
        lines = pa.array([block[a:b].decode(errors="replace") for a, b in pairs], pa.string())
    return pa.record_batch([lines, vector(bounds[:-1] + start, pa.int64())], schema=LINES)
