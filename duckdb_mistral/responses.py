"""The responses of large jobs, which stay in the result lines that they came in.

Beside the Parquet file of such a job lie its result files. A row's response is cut out of its line only where a query
asks for it: to read, write and keep it a second time would take longer than all else that is done to results.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from duckdb.func import FunctionNullHandling, PythonUDFType

from duckdb_mistral.errors import LedgerError
from duckdb_mistral.lines import LINES, raw_lines
from duckdb_mistral.quoting import literals

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The function that finds the line of a row, by a Parquet file and hash(custom_id).
FUNCTION = "mistral_internal_line"
#: An index takes 24 bytes per line; a scan reads a few files at a time.
INDEXES = 8
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
        response = f"{FUNCTION}(filename, hash(custom_id))->'$.response.body'"
        selects.append(
            f"SELECT * EXCLUDE (filename) REPLACE (coalesce(response, nullif({response}, 'null')) AS response) "
            f"FROM read_parquet([{literals(lined)}], filename = true)"
        )
    return f"({' UNION ALL '.join(selects)})"


def find_lines(files: pa.Array, hashes: pa.Array) -> pa.Array:
    """Return the result lines of rows, NULL where there is none: strings by the Parquet file and hash(custom_id)."""
    names = pc.unique(files).to_pylist()
    wanted = hashes.to_numpy(zero_copy_only=False)
    if len(names) == 1:
        return _found(names[0], wanted)
    found, places = [], []
    for name in names:
        rows = np.flatnonzero(pc.equal(files, name).to_numpy(zero_copy_only=False))
        found.append(_found(name, wanted[rows]))
        places.append(rows)
    back = np.argsort(np.concatenate(places)) if places else np.empty(0, dtype=np.int64)
    return pa.concat_arrays([pa.array([], pa.large_string()), *found]).take(pa.array(back))


def _found(name: str, wanted: np.ndarray[Any, Any]) -> pa.Array:
    """Return the lines of rows of one Parquet file."""
    found = pa.nulls(len(wanted), pa.large_string())
    for path in lines_of(Path(name)):
        status = path.stat()
        with _building:
            index = _index((path, status.st_size, status.st_mtime_ns))
        found = pc.coalesce(found, index.lines(wanted))
    return found


def register_lines(engine: duckdb.DuckDBPyConnection) -> None:
    """Let an engine of our own read what `kept_rows` says."""
    engine.create_function(
        FUNCTION,
        find_lines,
        ["VARCHAR", "UBIGINT"],
        "VARCHAR",
        type=PythonUDFType.ARROW,
        null_handling=FunctionNullHandling.SPECIAL,
        side_effects=False,
    )


class LineIndex:
    """The lines of one result file, by the hash of their custom_id."""

    def __init__(self, path: Path) -> None:
        """Read the file once; raise LedgerError where two custom_ids have the same hash."""
        with duckdb.connect(":memory:") as engine:
            engine.register("raw_lines", pa.RecordBatchReader.from_batches(LINES, raw_lines(path)))
            found = engine.execute(
                "SELECT start, hash(json_extract_string(line, '$.custom_id')) AS hash FROM raw_lines "
                "WHERE contains(line, '{')"  # an empty line has none
            ).fetchnumpy()
        in_file = np.argsort(found["start"])
        starts, hashes = found["start"][in_file], found["hash"][in_file]
        self._rows = np.argsort(hashes)
        self._hashes = hashes[self._rows]
        if np.any(self._hashes[1:] == self._hashes[:-1]):
            raise LedgerError(
                f"Two custom_ids of {path.name} cannot be told apart by their hash, so the column response cannot be "
                "read. The other columns can: SELECT * EXCLUDE (response)."
            )
        with pa.memory_map(str(path)) as file:
            data = file.read_buffer()
        bounds = np.append(starts, data.size).astype(np.int64)
        self._lines = pa.LargeStringArray.from_buffers(len(starts), pa.py_buffer(bounds), data)

    def lines(self, hashes: np.ndarray[Any, Any]) -> pa.Array:
        """Return the lines of some hashes, NULL where there is none."""
        if not len(self._hashes):
            return pa.nulls(len(hashes), pa.large_string())
        places = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        return self._lines.take(pa.array(self._rows[places], mask=self._hashes[places] != hashes))


@lru_cache(INDEXES)
def _index(version: tuple[Path, int, int]) -> LineIndex:
    """Return the index of a file as it is at a size and a time of change."""
    return LineIndex(version[0])
