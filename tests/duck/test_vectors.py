"""Vectors between DuckDB and Python."""

from __future__ import annotations

import gc
import json
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from duckdb_mistral.duck.jsonl import raw_lines
from duckdb_mistral.duck.vectors import buffer, numbers
from duckdb_mistral.functions import udfs, vectors
from duckdb_mistral.pricing.tokens import count_tokens
from duckdb_mistral.results.packed import floats
from duckdb_mistral.results.responses import LineIndex

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Rows of a vector.
ROWS = 2_000


@pytest.mark.parametrize("data", [b"", b"abc", np.arange(5), np.empty(0, dtype=np.int32)])
def test_buffer(data: bytes | np.ndarray) -> None:
    """A buffer holds the bytes that it was given."""
    assert buffer(data).to_pybytes() == bytes(data)


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64()])
def test_numbers(kind: pa.DataType) -> None:
    """Numbers come as they are, from a slice and from chunks too; a NULL is refused."""
    values = pa.array([1, 2, 3], kind)
    assert numbers(values[1:]).tolist() == [2, 3]
    assert numbers(pa.chunked_array([values, values[:1]], kind)).tolist() == [1, 2, 3, 1]
    assert numbers(pa.chunked_array([], kind)).tolist() == []
    with pytest.raises(ValueError, match="NULL"):
        numbers(pa.array([1, None], kind))


def _rows() -> pa.Array:
    row = {"name": "a", "flags": [True, None], "day": date(2026, 1, 1), "share": 0.5, "tags": [("a", "b")]}
    kind = pa.struct(
        [
            ("name", pa.string()),
            ("flags", pa.list_(pa.bool_())),
            ("day", pa.date32()),
            ("share", pa.float64()),
            ("tags", pa.map_(pa.string(), pa.string())),
        ]
    )
    return vectors.array([None, *[row] * ROWS], kind)


def _raw(directory: Path) -> pa.RecordBatch:
    (batch,) = raw_lines(_lines(directory))
    return batch


def _lines(directory: Path) -> Path:
    path = directory / "lines.jsonl"
    path.write_text("".join(json.dumps({"custom_id": f"{number}"}) + "\n" for number in range(ROWS)), encoding="utf-8")
    return path


MADE: dict[str, Callable[[Path], pa.Array | pa.RecordBatch]] = {
    "rows": lambda _: _rows(),
    "zeros": lambda _: udfs._zeros(ROWS),
    "raw lines": _raw,
    "tokens": lambda _: count_tokens(pa.array(["text"] * ROWS), pa.array(["model"] * ROWS)),
    "embeddings": lambda _: floats(pa.array([np.ones(4, np.float32).tobytes()] * ROWS, pa.binary())),
    "result lines": lambda directory: LineIndex(_lines(directory)).lines(np.arange(ROWS)),
    "scattered result lines": lambda directory: LineIndex(_lines(directory)).lines(np.arange(ROWS)[::-1]),
}


@pytest.mark.parametrize("what", list(MADE))
def test_memory_is_of_arrow(what: str, tmp_path: Path) -> None:
    """What DuckDB is given lies in memory of Arrow's: a thread of Arrow's would need Python to let go of Python's."""
    MADE[what](tmp_path)
    gc.collect()
    before = pa.total_allocated_bytes()
    made = MADE[what](tmp_path)
    assert pa.total_allocated_bytes() - before >= made.nbytes
