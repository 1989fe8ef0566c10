"""The protocol between the extension and the helper; the other side of it is extension/mistral.c."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Changes whenever anything below changes; the extension has its own copy.
PROTOCOL = 2
MAGIC = b"mstl"
#: The extension's function for all calls that concern only a few rows.
CALL = "mistral_internal_call"

#: Magic and protocol, which both sides send first; this stays the same in every protocol.
HELLO = struct.Struct("=4sI")
#: Function (none if a database was closed), database, bytes that follow, rows.
REQUEST = struct.Struct("=32sQQI4x")
#: Whether it failed, rows, bytes that follow.
REPLY = struct.Struct("=IIQ")

NUMBERS = {"BIGINT": pa.int64(), "UBIGINT": pa.uint64()}


def receive(connection: socket.socket, count: int) -> bytearray | None:
    """Return the next `count` bytes, or None if the other side has closed."""
    data = bytearray(count)
    view = memoryview(data)
    while view:
        got = connection.recv_into(view)
        if not got:
            return None
        view = view[got:]
    return data


def read_columns(data: bytearray, types: Sequence[str], rows: int) -> list[pa.Array]:
    """Return the columns of a request, without a copy; `types` are DuckDB's."""
    buffer = pa.py_buffer(data)
    columns, at = [], 0
    for kind in types:
        valid = np.frombuffer(data, np.uint8, rows, at)
        bits = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
        at += _padded(rows)
        if kind == "VARCHAR":
            offsets = buffer.slice(at, (rows + 1) * 8)
            size = struct.unpack_from("=q", data, at + rows * 8)[0]
            at += (rows + 1) * 8
            columns.append(pa.Array.from_buffers(pa.large_string(), rows, [bits, offsets, buffer.slice(at, size)]))
        else:
            size = rows * 8
            columns.append(pa.Array.from_buffers(NUMBERS[kind], rows, [bits, buffer.slice(at, size)]))
        at += _padded(size)
    return columns


def write_column(array: pa.Array | pa.ChunkedArray) -> list[bytes | memoryview | NDArray[Any]]:
    """Return the buffers of the one column of a reply."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    rows = len(array)
    valid = np.zeros(_padded(rows), np.uint8)
    valid[:rows] = np.asarray(array.is_valid().cast(pa.uint8()))
    if not pa.types.is_string(array.type) and not pa.types.is_large_string(array.type):
        width = array.type.bit_width // 8
        return [valid, memoryview(array.buffers()[1])[array.offset * width : (array.offset + rows) * width]]
    array = array.cast(pa.large_string())
    _, positions, data = array.buffers()
    offsets = np.frombuffer(positions, np.int64)[array.offset : array.offset + rows + 1]
    texts = memoryview(b"" if data is None else data)[offsets[0] : offsets[-1]]
    return [valid, offsets - offsets[0], texts]


def _padded(count: int) -> int:
    return (count + 7) // 8 * 8
