"""The responses of large jobs, which stay in the result lines that they came in.

Beside the Parquet file of such a job lie its result files, whose lines are its first rows, in the same order. A row's
response is cut out of its line only where a query asks for it: to read, write and keep it a second time would take
longer than all else that is done to results.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from duckdb.func import FunctionNullHandling, PythonUDFType

from duckdb_mistral.quoting import literal, literals

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import duckdb

#: The function that finds the line of a row, by the name of a Parquet file and the row's number in it.
FUNCTION = "mistral_internal_line"
#: An index takes 8 bytes per line; a scan reads a few files at a time.
INDEXES = 8
#: A file is searched for newlines in blocks of so many bytes.
BLOCK_BYTES = 16 << 20
#: Said where a line is not that of its row: somebody changed the files.
OTHER_LINES = (
    "The result lines beside these results are not those that they were read from, so the column response cannot be "
    "read. The other columns can: SELECT * EXCLUDE (response). To have it back, free the kept results with "
    "`duckdb-mistral clean --results ID --yes` and read them again."
)
_building = threading.Lock()


def line_path(results: Path, number: int) -> Path:
    """Return where the result file `number`, counted from 0, of a Parquet file lies."""
    return results.with_suffix(f".lines-{number}.jsonl")


def lines_of(results: Path) -> list[Path]:
    """Return the result files that are kept beside a Parquet file; most have none."""
    return list(takewhile(Path.exists, (line_path(results, number) for number in count())))


def size_of(results: Path) -> int:
    """Return the bytes of a Parquet file and of the result files beside it; raise FileNotFoundError without it."""
    return sum(path.stat().st_size for path in (results, *lines_of(results)))


def kept_rows(files: Sequence[Path]) -> str:
    """Return what to read FROM for all columns of kept results; FUNCTION finds the responses that stay in lines."""
    lined = [path for path in files if lines_of(path)]
    whole = [path for path in files if path not in lined]
    selects = [f"SELECT * FROM read_parquet([{literals(whole)}])"] if whole else []
    if lined:
        # Both at once, so that a line is parsed once.
        found = f"json_extract({FUNCTION}(filename, file_row_number), ['$.custom_id', '$.response.body'])"
        response = (
            "CASE WHEN found IS NULL THEN response "
            f"WHEN found[1]->>'$' IS DISTINCT FROM custom_id THEN error({literal(OTHER_LINES)}) "
            "ELSE nullif(found[2], 'null') END"
        )
        selects.append(
            f"SELECT * EXCLUDE (filename, file_row_number, found) REPLACE ({response} AS response) "
            f"FROM (SELECT *, {found} AS found "
            f"FROM read_parquet([{literals(lined)}], filename = true, file_row_number = true))"
        )
    return f"({' UNION ALL '.join(selects)})"


def find_lines(files: pa.Array, rows: pa.Array) -> pa.Array:
    """Return the result lines of rows, NULL where there is none: large strings by file name and row number."""
    names = pc.unique(files).to_pylist()
    wanted = rows.to_numpy(zero_copy_only=False)
    if len(names) == 1:
        return _found(names[0], wanted)
    found, places = [], []
    for name in names:
        of_file = np.flatnonzero(pc.equal(files, name).to_numpy(zero_copy_only=False))
        found.append(_found(name, wanted[of_file]))
        places.append(of_file)
    back = np.argsort(np.concatenate(places)) if places else np.empty(0, dtype=np.int64)
    return pa.concat_arrays([pa.array([], pa.large_string()), *found]).take(pa.array(back))


def _found(name: str, wanted: np.ndarray[Any, Any]) -> pa.Array:
    """Return the lines of rows of one Parquet file; the lines of its first result file come first."""
    found = pa.nulls(len(wanted), pa.large_string())
    before = 0
    for path in lines_of(Path(name)):
        status = path.stat()
        with _building:
            index = _index((path, status.st_size, status.st_mtime_ns))
        here = (wanted >= before) & (wanted < before + len(index))
        if here.all():
            return index.lines(wanted - before)
        if here.any():
            found = pc.replace_with_mask(found, pa.array(here), index.lines(wanted[here] - before))
        before += len(index)
    return found


def register_lines(engine: duckdb.DuckDBPyConnection) -> None:
    """Let an engine of our own read what `kept_rows` says."""
    engine.create_function(
        FUNCTION,
        find_lines,
        ["VARCHAR", "BIGINT"],
        "VARCHAR",
        type=PythonUDFType.ARROW,
        null_handling=FunctionNullHandling.SPECIAL,
        side_effects=False,
    )


class LineIndex:
    """Where the lines of one result file begin; a line of nothing but spaces is none, as in DuckDB's reader."""

    def __init__(self, path: Path) -> None:
        """Read the file once."""
        self._path = path
        found = list(_line_starts(path))
        starts = np.concatenate([np.empty(0, dtype=np.int64), *(starts for starts, _ in found)])
        unusual = np.concatenate([np.empty(0, dtype=np.int64), *(unusual for _, unusual in found)])
        with path.open("rb") as file:
            empty = [start for start in unusual.tolist() if not _line_at(file, start).strip()]
        self._bounds = np.append(np.setdiff1d(starts, empty, assume_unique=True), path.stat().st_size)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def lines(self, rows: np.ndarray[Any, Any]) -> pa.Array:
        """Return the lines of some rows, counted from 0, each with what ends it."""
        first, following = int(rows[0]), int(rows[-1]) + 1
        if following - first == len(rows) and (rows[1:] > rows[:-1]).all():
            # Read, not mapped: the pages of a map would count as memory of this process.
            bounds = self._bounds[first : following + 1]
            with self._path.open("rb") as file:
                file.seek(int(bounds[0]))
                data = file.read(int(bounds[-1] - bounds[0]))
            return _strings(bounds - bounds[0], pa.py_buffer(data))
        with pa.memory_map(str(self._path)) as file:
            return _strings(self._bounds, file.read_buffer()).take(pa.array(rows))


def _line_starts(path: Path) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Yield where lines start, block after block; and of these, the lines that do not begin with a bracket."""
    at, begins = 0, True
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            data = np.frombuffer(block, dtype=np.uint8)
            starts = np.flatnonzero(data == ord("\n")) + 1
            starts = np.concatenate(([0] if begins else [], starts)).astype(np.int64)
            begins = block.endswith(b"\n")
            starts = starts[starts < len(data)]
            yield starts + at, starts[data[starts] != ord("{")] + at
            at += len(block)


def _line_at(file: Any, start: int) -> bytes:
    file.seek(start)
    line: bytes = file.readline()
    return line


def _strings(bounds: np.ndarray[Any, Any], data: pa.Buffer) -> pa.Array:
    return pa.LargeStringArray.from_buffers(len(bounds) - 1, pa.py_buffer(bounds), data)


@lru_cache(INDEXES)
def _index(version: tuple[Path, int, int]) -> LineIndex:
    """Return the index of a file as it is at a size and a time of change."""
    return LineIndex(version[0])
