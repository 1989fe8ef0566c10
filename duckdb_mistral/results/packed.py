"""Embeddings that came as base64: the bytes of their numbers, read a vector of rows at a time."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from duckdb_mistral.duck.arrow_function import create_arrow_function
from duckdb_mistral.duck.vectors import vector

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

#: The function that makes numbers of bytes, in the template of embeddings.
FUNCTION = "mistral_internal_floats"
_FLOAT = np.dtype("<f4")
#: Of an embedding's numbers none is huge, or next to nothing; those that other bytes make (output_dtype) are.
SMALLEST, LARGEST = 1e-30, 1e3


@contextmanager
def reading_floats(engine: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Let an engine of our own have the function that reads embeddings; the next job's connection makes it again."""
    create_arrow_function(engine, FUNCTION, floats, ["BLOB"], "FLOAT[]", pure=True)
    try:
        yield
    finally:
        engine.remove_function(FUNCTION)


def floats(packed: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return the numbers whose bytes these are, 4 each, the lowest first; NULL where they are none of an embedding."""
    if isinstance(packed, pa.ChunkedArray):
        packed = packed.combine_chunks()
    packed = packed.cast(pa.large_binary())
    lengths = pc.fill_null(pc.binary_length(packed), 0)
    whole = pc.and_(pc.greater(lengths, 0), pc.equal(pc.bit_wise_and(lengths, _FLOAT.itemsize - 1), 0))
    is_whole = whole.to_numpy(zero_copy_only=False)
    bounds = np.concatenate(([0], np.cumsum(np.where(is_whole, lengths.to_numpy(), 0)) // _FLOAT.itemsize))
    numbers = _numbers(packed.filter(whole))
    with np.errstate(invalid="ignore"):
        sizes = np.abs(numbers)
        odd = np.concatenate(([0], np.cumsum(~((sizes == 0) | (sizes >= SMALLEST) & (sizes <= LARGEST)))))
    good = is_whole & (odd[bounds[1:]] == odd[bounds[:-1]])
    return pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), vector(numbers, pa.float32()), mask=pa.array(~good))


def _numbers(packed: pa.Array) -> np.ndarray[Any, Any]:
    """Return the numbers of all rows, one after another, from the buffer that they lie in."""
    if not len(packed):
        return np.empty(0, dtype=_FLOAT)
    _, offsets, data = packed.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[packed.offset : packed.offset + len(packed) + 1]
    return np.frombuffer(memoryview(data)[ends[0] : ends[-1]], dtype=_FLOAT)
