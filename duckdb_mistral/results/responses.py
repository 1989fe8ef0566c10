"""The responses of large jobs, which stay in the result lines that they came in.

Beside the Parquet file of such a job lie its result files. A row's response is cut out of its line only where a query
asks for it: to read, write and keep it a second time would take longer than all else that is done to results.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from itertools import count, takewhile
from os import SEEK_END
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from duckdb_mistral.duck.arrow_function import create_arrow_function
from duckdb_mistral.duck.engine import own_engine
from duckdb_mistral.duck.jsonl import BOM, JUST_IDS
from duckdb_mistral.duck.qualifying import qualified
from duckdb_mistral.duck.quoting import literal, literals
from duckdb_mistral.duck.vectors import buffer, vector
from duckdb_mistral.jobs.job import Step
from duckdb_mistral.results.bring import bring_results
from duckdb_mistral.results.columns import COLUMNS, LINED
from duckdb_mistral.results.convert import said_of
from duckdb_mistral.results.mending import finite
from duckdb_mistral.results.provenance import digests, said_by
from duckdb_mistral.state.names import line_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from duckdb_mistral.jobs.job import Job
    from duckdb_mistral.state.home import Home

#: The function that finds the line of a row, by the name of a Parquet file, and the row's custom_id and its hash.
FUNCTION = "mistral_internal_line"
#: How a Parquet file begins and ends.
PARQUET_MARK = b"PAR1"
#: An index takes 32 bytes per line; a scan reads a few files at a time.
INDEXES = 8
#: A file is searched for newlines in blocks of so many bytes.
BLOCK_BYTES = 1 << 20
#: Rows mostly lie as their lines do: those of one call are in so few places that each is read by itself, or else
#: scattered over the file.
FEW_PLACES = 16
#: Said if a row's line is missing: somebody changed the files.
OTHER_LINES = (
    "The result lines beside these results are not the ones that they were read from, so the column response cannot "
    "be read. The other columns can: SELECT * EXCLUDE (response). While the server has the job's files, response can "
    "be restored: free the kept results with `duckdb-mistral clean --results ID --yes` and read them again."
)
_building = threading.Lock()


def lines_of(results: Path) -> list[Path]:
    """Return the result files that are kept beside a Parquet file; most have none."""
    return list(takewhile(Path.exists, (line_path(results, number) for number in count())))


def size_of(results: Path) -> int:
    """Return the bytes of a Parquet file and of the result files beside it; raise FileNotFoundError without it."""
    return sum(path.stat().st_size for path in (results, *lines_of(results)))


def kept_results(home: Home, job: Job) -> Path | None:
    """Return the file of a job's kept results; None if it is gone, damaged or another job's. Raises StoreError."""
    if job.results is None:
        return None
    path = home.kept(job.results)
    if _is_whole(path, job):
        return path
    is_here = home.store is not None and bring_results(home.store, path, job) and _is_whole(path, job)
    return path if is_here else None


def _is_whole(path: Path, job: Job) -> bool:
    """Tell whether a job's results are here as they were kept."""
    try:
        # None in the ledger of an older version
        return job.results_bytes in (size_of(path), None) and _is_parquet(path) and _is_of(path, job)
    except FileNotFoundError:
        return False


def _is_parquet(path: Path) -> bool:
    """Tell whether a file begins and ends as Parquet does: another one of the same size does not."""
    with path.open("rb") as file:
        begins = file.read(len(PARQUET_MARK))
        file.seek(-min(len(PARQUET_MARK), path.stat().st_size), SEEK_END)
        return begins == file.read() == PARQUET_MARK


def _is_of(path: Path, job: Job) -> bool:
    """Tell whether results, and the lines beside them, are those of a job, by what they say of themselves."""
    found = said_by(path)
    if found is None:
        return False
    said, rows = found
    expected = {"submission": job.submission_id} if job.step is Step.ANSWERED else said_of(job)
    if job.results_bytes is None and job.results_told is not None:  # each of several homes has a file of its own
        expected = expected | {"told": job.results_told, "missing": job.results_missing}
        said = {"missing": 0} | said
    # What an older version wrote says nothing; of another program's requests the number is not ours.
    ours = not said or (expected.items() <= said.items() and said.get("lines", []) == digests(lines_of(path)))
    return ours and (job.submission_id is None or job.request_count in (rows, 0))


def stored_rows(files: Sequence[Path]) -> str:
    """Return what to read FROM for kept results as they are stored: a response that stays in its line is NULL."""
    return _rows(files, lambda stored: f"SELECT * EXCLUDE (filename, {LINED}) FROM {stored}")


def kept_rows(files: Sequence[Path]) -> str:
    """Return what to read FROM for all columns of kept results; FUNCTION finds the responses that stay in lines."""
    # Both at once, so that a line is parsed once.
    # COLLATE C, because this runs on the caller's connection, which may take 'a' and 'A' for the same.
    line = f"{FUNCTION}(filename, hash(custom_id COLLATE C), custom_id)"
    found = f"json_extract({line}, list_value('$.custom_id', '$.response.body'))"
    # Without the mark, all rows have a line, or those without a response.
    line_id = "json_extract_string(list_extract(found, 1), '$')"
    body = "nullif(list_extract(found, 2), 'null')"
    other = f"coalesce({LINED}, response IS NULL) AND {line_id} IS DISTINCT FROM custom_id COLLATE C"
    response = (
        f"CASE WHEN {other} THEN error({literal(OTHER_LINES)}) WHEN found IS NULL THEN response ELSE {finite(body)} END"
    )
    return _rows(
        files,
        lambda stored: (
            f"SELECT * EXCLUDE (filename, {LINED}, found) REPLACE ({response} AS response) "
            f"FROM (SELECT *, {found} AS found FROM {stored})"
        ),
    )


def _rows(files: Sequence[Path], select: Callable[[str], str]) -> str:
    """Return what to read FROM for Parquet files: all of some, and what is selected of those with lines beside them."""
    lined = [path for path in files if lines_of(path)]
    whole = [path for path in files if path not in lined]
    selects = [f"SELECT * FROM read_parquet(list_value({literals(whole)}))"] if whole else []
    if lined:
        selects.append(select(_stored(lined)))
    return f"({qualified(' UNION ALL '.join(selects))})"


def _stored(lined: Sequence[Path]) -> str:
    """Return what to read FROM for all columns, LINED and `filename`; NULL where a file leaves a column out."""
    columns = ", ".join(f"NULL::{kind} AS {name}" for name, kind in (COLUMNS | {LINED: "BOOLEAN"}).items())
    read = f"read_parquet(list_value({literals(lined)}), union_by_name = true, filename = true)"
    return f"(SELECT {columns} WHERE false UNION ALL BY NAME FROM {read})"


def find_lines(files: pa.Array, hashes: pa.Array, custom_ids: pa.Array) -> pa.Array:
    """Return the result lines of rows, NULL where there is none, as large strings.

    They are found by file name and hash(custom_id), and among lines of the same hash by the custom_id itself.
    """
    names = pc.unique(files).to_pylist()
    wanted = hashes.to_numpy(zero_copy_only=False)
    if len(names) == 1:
        return _found(names[0], wanted, custom_ids)
    found, places = [], []
    for name in names:
        of_file = np.flatnonzero(pc.equal(files, name).to_numpy(zero_copy_only=False))
        found.append(_found(name, wanted[of_file], custom_ids.take(pa.array(of_file))))
        places.append(of_file)
    back = np.argsort(np.concatenate(places)) if places else np.empty(0, dtype=np.int64)
    return pa.concat_arrays([pa.array([], pa.large_string()), *found]).take(pa.array(back))


def _found(name: str, wanted: np.ndarray[Any, Any], custom_ids: pa.Array) -> pa.Array:
    """Return the lines of rows of one Parquet file."""
    found = pa.nulls(len(wanted), pa.large_string())
    for path in lines_of(Path(name)):
        try:
            status = path.stat()
            with _building:
                index = _index((path, status.st_size, status.st_mtime_ns))
        except FileNotFoundError:  # freed while this query runs
            break
        numbers = index.numbers(wanted, custom_ids)
        here = numbers >= 0
        if here.all():
            return index.lines(numbers)
        if here.any():
            found = pc.replace_with_mask(found, pa.array(here), index.lines(numbers[here]))
    return found


def register_lines(engine: duckdb.DuckDBPyConnection) -> None:
    """Let an engine of our own read what `kept_rows` says."""
    create_arrow_function(engine, FUNCTION, find_lines, ["VARCHAR", "UBIGINT", "VARCHAR"], "VARCHAR", pure=True)


class LineIndex:
    """The lines of one result file, by the hash of their custom_id."""

    def __init__(self, path: Path) -> None:
        """Read the file; one whose lines are not such as are kept counts as having none."""
        self._path = path
        self._bounds = _bounds(path)
        hashes = _hashes(path)
        self._hashes = hashes if len(hashes) == len(self._bounds) - 1 else hashes[:0]
        self._by_hash = np.argsort(self._hashes)
        self._sorted = self._hashes[self._by_hash]
        #: Hashes that custom_ids share, which nearly none do unless they are made to, and the lines of such by name.
        self._shared = self._sorted[1:][self._sorted[1:] == self._sorted[:-1]]
        self._by_name = self._named(np.flatnonzero(np.isin(self._hashes, self._shared)))

    def numbers(self, hashes: np.ndarray[Any, Any], custom_ids: pa.Array) -> np.ndarray[Any, Any]:
        """Return the numbers of the lines of some custom_ids and their hashes, counted from 0; -1 where is none."""
        numbers = self._by_hashes(hashes)
        if self._by_name:
            for place in np.flatnonzero(np.isin(hashes, self._shared)):
                numbers[place] = self._by_name.get(custom_ids[int(place)].as_py(), -1)
        return numbers

    def _named(self, numbers: np.ndarray[Any, Any]) -> dict[str, int]:
        """Return the numbers of lines by their custom_ids."""
        if not len(numbers):
            return {}
        with own_engine() as engine:
            engine.register("shared", pa.table({"number": vector(numbers, pa.int64()), "line": self.lines(numbers)}))
            return dict(
                engine.execute("SELECT json_extract_string(line, '$.custom_id'), number FROM shared").fetchall()
            )

    def _by_hashes(self, hashes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        numbers = np.full(len(hashes), -1)
        done = 0
        for _ in range(FEW_PLACES):
            (first,) = self._searched(hashes[done : done + 1]) if done < len(hashes) else (-1,)
            if first < 0:
                break
            following = self._hashes[first : first + len(hashes) - done]
            other = np.flatnonzero(hashes[done : done + len(following)] != following)
            count = int(other[0]) if len(other) else len(following)
            numbers[done : done + count] = np.arange(first, first + count)
            done += count
        numbers[done:] = self._searched(hashes[done:])
        return numbers

    def _searched(self, hashes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if not len(self._hashes):
            return np.full(len(hashes), -1)
        places = np.minimum(np.searchsorted(self._sorted, hashes), len(self._hashes) - 1)
        return np.where(self._sorted[places] == hashes, self._by_hash[places], -1)

    def lines(self, numbers: np.ndarray[Any, Any]) -> pa.Array:
        """Return the lines of some numbers, each with what ends it."""
        ends = np.append(np.flatnonzero(np.diff(numbers) != 1) + 1, len(numbers))
        if len(ends) > FEW_PLACES:
            with pa.memory_map(str(self._path)) as file:
                return _strings(pa.py_buffer(self._bounds), file.read_buffer()).take(pa.array(numbers))
        # Read, not mapped: the pages of a map would count as memory of this process.
        pieces, bounds = [], [np.zeros(1, dtype=np.int64)]
        with self._path.open("rb") as file:
            for start, end in zip((0, *ends[:-1]), ends, strict=True):
                here = self._bounds[numbers[start] : numbers[end - 1] + 2]
                file.seek(int(here[0]))
                pieces.append(file.read(int(here[-1] - here[0])))
                bounds.append(here[1:] - here[0] + bounds[-1][-1])
        data = b"".join(pieces)
        if len(data) != bounds[-1][-1]:  # cut since it was indexed
            return pa.nulls(len(numbers), pa.large_string())
        return _strings(buffer(np.concatenate(bounds)), buffer(data))


def _hashes(path: Path) -> np.ndarray[Any, Any]:
    """Return the hashes of the custom_ids of a file, line after line; none if one is not JSON."""
    with own_engine() as engine:
        engine.execute("SET preserve_insertion_order = true")
        try:
            found = engine.execute(
                f"SELECT hash(custom_id) AS hash FROM read_json({literal(path)}, {JUST_IDS})"
            ).fetchnumpy()
        except (duckdb.InvalidInputException, duckdb.ConversionException):
            return np.empty(0, dtype=np.uint64)
    hashes: np.ndarray[Any, Any] = found["hash"]
    return hashes


def _bounds(path: Path) -> np.ndarray[Any, Any]:
    """Return where the lines of a file begin, and its end; a blank line does not count, as for DuckDB."""
    found = list(_line_starts(path))
    starts = np.concatenate([np.empty(0, dtype=np.int64), *(starts for starts, _ in found)])
    unusual = np.concatenate([np.empty(0, dtype=np.int64), *(unusual for _, unusual in found)])
    with path.open("rb") as file:
        empty = [start for start in unusual.tolist() if not _line_at(file, start).strip()]
    return np.append(np.setdiff1d(starts, empty, assume_unique=True), path.stat().st_size)


def _line_starts(path: Path) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Yield where lines start, block after block; and of these, the lines that do not begin with a bracket."""
    at, begins = 0, True
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            data = np.frombuffer(block, dtype=np.uint8)
            starts = np.flatnonzero(data == ord("\n")) + 1
            first = len(BOM) if not at and block.startswith(BOM) else 0
            starts = np.concatenate(([first] if begins else [], starts)).astype(np.int64)
            begins = block.endswith(b"\n")
            starts = starts[starts < len(data)]
            yield starts + at, starts[data[starts] != ord("{")] + at
            at += len(block)


def _line_at(file: Any, start: int) -> bytes:
    file.seek(start)
    line: bytes = file.readline()
    return line


def _strings(bounds: pa.Buffer, data: pa.Buffer) -> pa.Array:
    return pa.LargeStringArray.from_buffers(bounds.size // np.int64().itemsize - 1, bounds, data)


@lru_cache(INDEXES)
def _index(version: tuple[Path, int, int]) -> LineIndex:
    """Return the index of a file as it is at a size and a time of change."""
    return LineIndex(version[0])
