"""Vectors of Arrow's that DuckDB hands over or takes: their numbers as numpy's, and their memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator


def buffer(data: bytes | np.ndarray[Any, Any]) -> pa.Buffer:
    """Return a copy of data in memory of Arrow's own, for what DuckDB is given.

    DuckDB 1.5 lets threads of Arrow's read it, which may let it go when Python is ending. They would need Python for
    that if the memory were Python's, and abort the process.
    """
    values = np.frombuffer(data, np.uint8)
    memory = pa.allocate_buffer(len(values))
    np.frombuffer(memory, np.uint8)[:] = values
    return memory


def vector(values: np.ndarray[Any, Any], kind: pa.DataType) -> pa.Array:
    """Return numbers without NULLs as an array for DuckDB, in memory of Arrow's own; `pa.array` would not copy them."""
    return pa.Array.from_buffers(kind, len(values), [None, buffer(values)])


def numbers(values: pa.Array | pa.ChunkedArray) -> np.ndarray[Any, Any]:
    """Return 64-bit integers without NULLs as numpy's; `to_numpy` would import pandas, where that is installed."""
    found = list(_buffers(values))
    return found[0] if len(found) == 1 else np.concatenate([np.empty(0, _type(values)), *found])


def _buffers(values: pa.Array | pa.ChunkedArray) -> Iterator[np.ndarray[Any, Any]]:
    for chunk in values.chunks if isinstance(values, pa.ChunkedArray) else [values]:
        if chunk.null_count:
            raise ValueError("a NULL is no number")
        if len(chunk):
            yield np.frombuffer(chunk.buffers()[1], _type(values))[chunk.offset : chunk.offset + len(chunk)]


def _type(values: pa.Array | pa.ChunkedArray) -> type[np.generic]:
    return np.uint64 if values.type == pa.uint64() else np.int64
