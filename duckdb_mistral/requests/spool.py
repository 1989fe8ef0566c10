"""Request lines on their way to files: whole vectors in, part files within the API's limits out.

A vector's lines are in one buffer, so a part is written as slices of it, and no line is handled on its own. Each part
has a file of keys beside it, with the custom_ids and the hashes of the bodies, so that results can be checked and
reused without reading the requests again.
"""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from duckdb_mistral.duck.arrow_function import create_arrow_function
from duckdb_mistral.duck.vectors import numbers, vector
from duckdb_mistral.errors import SourceError
from duckdb_mistral.requests.keys import KEYS, new_keys_file
from duckdb_mistral.requests.vectors import chunks, of_type, offsets_of, without_nulls
from duckdb_mistral.runtime.failpoints import failpoint
from duckdb_mistral.runtime.parallel import together
from duckdb_mistral.state.names import keys_path, part_path, spill_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import duckdb

#: Free disk space is checked before the first write and after every this many bytes.
CHECKED_BYTES = 64 << 20
#: Keep this many bytes of the disk free, but only a tenth of a small disk.
SPARED_BYTES = 64_000_000
FREE_SOME = "Nothing was sent. Free some space there, or set DUCKDB_MISTRAL_HOME to another directory."
#: From this many hashes on, two threads sort one half each.
HALVED = 100_000


@dataclass(frozen=True, kw_only=True)
class SpooledPart:
    """One finished input file."""

    part: int
    path: Path
    request_count: int
    input_bytes: int


class Spool:
    """A directory of part files; `write` may be called from several threads."""

    def __init__(
        self,
        directory: Path,
        *,
        max_requests: int,
        max_bytes: int,
        release: Callable[[], None] | None = None,
        owned: Callable[[], bool] = lambda: False,
    ) -> None:
        """Create `directory`; no part will hold more than `max_requests` lines or `max_bytes` bytes.

        `release` is called once, when the spool is kept or discarded. `owned` tells whether the parts belong to
        somebody even though `keep` was not called.
        """
        self.directory = directory
        self.failure: Exception | None = None
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._parts: list[SpooledPart] = []
        self._file: Any = None
        self._keys_file: Any = None
        self._keys: Any = None
        self._requests = 0
        self._bytes = 0
        self._release = release
        self._owned = owned
        self._done = False
        self._unchecked = CHECKED_BYTES
        self._id_hashes: list[np.ndarray[Any, Any]] = []
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700)

    @property
    def spill(self) -> Path:
        """The directory that DuckDB may spill to when memory is full."""
        return spill_path(self.directory)

    def write(
        self,
        lines: pa.Array | pa.ChunkedArray,
        custom_ids: pa.Array | pa.ChunkedArray,
        requests: pa.Array | pa.ChunkedArray,
        id_hashes: pa.ChunkedArray | None = None,
    ) -> None:
        """Append request lines, each ending in a newline, and their keys, all strings; NULL lines are skipped.

        `id_hashes` are 64-bit hashes of the custom_ids, for `may_repeat`. The first failure is kept in `failure`, and
        later lines are skipped: the query that feeds the spool runs to its end, where the failure is reported.
        """
        if id_hashes is not None:
            # Without a copy, the memory of all the vector's columns would be held.
            self._id_hashes.extend(numbers(chunk).copy() for chunk in id_hashes.chunks)
        for chunk, *columns in zip(chunks(lines), chunks(custom_ids), chunks(requests), strict=True):
            ready = without_nulls(chunk)
            keys = pa.RecordBatch.from_arrays([of_type(column, pa.string()) for column in columns], schema=KEYS)
            if chunk.null_count:
                keys = keys.filter(chunk.is_valid())
            with self._lock:
                if self.failure is not None:
                    return
                try:
                    self._append(ready, keys)
                except (OSError, SourceError) as error:
                    self.failure = error

    def fail(self, failure: SourceError) -> None:
        """Skip all further lines; `finish` raises the first failure."""
        with self._lock:
            self.failure = self.failure or failure

    @property
    def request_count(self) -> int:
        """How many requests have been written so far."""
        return sum(part.request_count for part in self._parts) + self._requests

    def create_function(self, engine: duckdb.DuckDBPyConnection) -> None:
        """Give one of our own connections a function that writes into this spool: mistral_internal_write.

        It takes the line, the custom_id and the hash of the body; its result means nothing.
        """

        def write(lines: pa.Array, custom_ids: pa.Array, requests: pa.Array) -> pa.Array:
            self.write(lines, custom_ids, requests)
            return vector(np.zeros(len(lines), np.int8), pa.int8())

        create_arrow_function(
            engine, "mistral_internal_write", write, ["VARCHAR", "VARCHAR", "VARCHAR"], "TINYINT", pure=False
        )

    def finish(self) -> list[SpooledPart]:
        """Close the last part and return all parts; raises the first failure."""
        with self._lock:
            if self.failure is None:
                try:
                    self._close_part()
                except OSError as error:
                    self.failure = error
            with suppress(OSError):
                self._close_files()
            if isinstance(self.failure, OSError):
                raise SourceError(
                    f"The requests could not be written to {self.directory}: {_words(self.failure)}. {FREE_SOME}"
                ) from self.failure
            if self.failure is not None:
                raise self.failure
            return list(self._parts)

    def may_repeat(self) -> bool:
        """Tell whether custom_ids may repeat; False is certain. Every write must have been given its hashes."""
        hashes = np.concatenate([np.empty(0, np.uint64), *self._id_hashes])
        self._id_hashes = [hashes]
        if len(hashes) >= HALVED:
            together(np.array_split(hashes, 2), np.ndarray.sort, lambda *_: None, threads=2, daemon=True)
        hashes.sort(kind="stable")  # merges runs that are sorted already
        return bool((hashes[1:] == hashes[:-1]).any())

    def keep(self) -> None:
        """Leave the finished parts where they are: somebody owns them now, and `discard` no longer removes them."""
        self._let_go()

    def discard(self) -> None:
        """Remove the directory and everything in it, unless it was kept or is owned."""
        with self._lock:
            with suppress(OSError):
                self._close_files()
            if not self._done and not self._owned():
                shutil.rmtree(self.directory, ignore_errors=True)
        self._let_go()

    def _let_go(self) -> None:
        self._done = True
        release, self._release = self._release, None
        if release is not None:
            release()

    def _append(self, lines: pa.Array, keys: pa.RecordBatch) -> None:
        if not len(lines):
            return
        offsets = offsets_of(lines)
        data = memoryview(lines.buffers()[2])[offsets[0] : offsets[-1]]
        start = 0
        while start < len(lines):
            taken = self._fitting(offsets, start)
            if not taken and not self._requests:
                raise SourceError(_too_long(lines[start].as_py(), self._max_bytes))
            if not taken:
                self._close_part()
                continue
            piece = data[offsets[start] - offsets[0] : offsets[start + taken] - offsets[0]]
            self._write_slice(piece, keys.slice(start, taken))
            start += taken

    def _fitting(self, offsets: np.ndarray[Any, Any], start: int) -> int:
        """Return how many lines, from `start` on, fit into the open part."""
        last = offsets[start] + self._max_bytes - self._bytes
        by_bytes = int(np.searchsorted(offsets, last, side="right")) - 1 - start
        return max(0, min(by_bytes, self._max_requests - self._requests, len(offsets) - 1 - start))

    def _write_slice(self, data: memoryview, keys: pa.RecordBatch) -> None:
        if self._file is None:
            self._file = _new_file(self._path())
            self._keys_file = new_keys_file(keys_path(self._path()))
            self._keys = pa.ipc.new_file(self._keys_file, KEYS)
        failpoint("before-spool-write", writes=True)
        if self._unchecked >= CHECKED_BYTES:
            self._unchecked = 0
            total, _, free = shutil.disk_usage(self.directory)
            spared = min(SPARED_BYTES, total // 10)
            if free < spared:
                raise SourceError(
                    f"The requests could not be written to {self.directory}: its disk has only {free / 1e6:,.0f} MB "
                    f"left, and {spared / 1e6:,.0f} MB must stay free. {FREE_SOME}"
                )
        written = 0
        while written < len(data):
            written += self._file.write(data[written:])
        self._keys.write_batch(keys)
        self._requests += len(keys)
        self._bytes += len(data)
        self._unchecked += len(data)

    def _path(self) -> Path:
        return part_path(self.directory, len(self._parts) + 1)

    def _close_part(self) -> None:
        if self._file is None:
            return
        path = self._path()
        self._keys.close()
        self._close_files()
        self._parts.append(
            SpooledPart(part=len(self._parts) + 1, path=path, request_count=self._requests, input_bytes=self._bytes)
        )
        self._requests = self._bytes = 0

    def _close_files(self) -> None:
        with ExitStack() as stack:
            for file in (self._file, self._keys_file):
                if file is not None:
                    stack.callback(file.close)
            self._file = self._keys_file = None


def _words(error: OSError) -> str | None:
    """Return what went wrong, without what Arrow adds to it."""
    return os.strerror(error.errno) if error.errno else error.strerror


def _new_file(path: Path) -> Any:
    file = path.open("xb", buffering=0)
    path.chmod(0o600)
    return file


def _too_long(line: str, max_bytes: int) -> str:
    start = line[:120].replace("\n", " ")
    return (
        f"One request has {len(line.encode()):,} bytes, more than a file may hold ({max_bytes:,}, the setting "
        f"max_bytes_per_file). It begins {start}… Nothing was sent. Shorten that row."
    )
