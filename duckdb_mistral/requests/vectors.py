"""Vectors of text as DuckDB hands them over: their bytes are in one buffer, and are sliced there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


def chunks(values: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    """Return the arrays that make up a vector."""
    return values.chunks if isinstance(values, pa.ChunkedArray) else [values]


def of_type(texts: pa.Array, *types: pa.DataType) -> pa.Array:
    """Return texts of one of the types; texts of any other type are cast to the last."""
    return texts if texts.type in types else texts.cast(types[-1])


def without_nulls(lines: pa.Array) -> pa.Array:
    """Return the lines without NULLs, of a type whose bytes are contiguous."""
    lines = of_type(lines, pa.string(), pa.large_string())
    return lines.drop_null() if lines.null_count else lines


def offsets_of(lines: pa.Array) -> np.ndarray[Any, Any]:
    """Return where each line starts in the array's buffer, and where the last one ends."""
    width = np.int64 if lines.type == pa.large_string() else np.int32
    every = np.frombuffer(lines.buffers()[1], dtype=width)
    return every[lines.offset : lines.offset + len(lines) + 1].astype(np.int64)
