"""Python's values as Arrow's, from their buffers.

`pa.array` and `pa.scalar` import pandas where it is installed, to see whether values are its own: that takes as long as
everything else that a small submit needs.
"""

from __future__ import annotations

from datetime import date
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from duckdb_mistral.duck.vectors import buffer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: 1970-01-01, from which Arrow counts days.
FIRST_DAY = date(1970, 1, 1).toordinal()


def array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return values, of which any may be None, as an array of a type that is used here.

    A struct's values are dictionaries, in which what is None may be missing, and a map's are pairs of key and value.
    """
    valid = None if all(value is not None for value in values) else _bits(value is not None for value in values)
    if pa.types.is_struct(kind):
        rows = [value or {} for value in values]
        children = [array([row.get(field.name) for row in rows], field.type) for field in kind]
        return pa.Array.from_buffers(kind, len(values), [valid], children=children)
    if pa.types.is_list(kind) or pa.types.is_map(kind):
        members = list(chain.from_iterable(value or () for value in values))
        return pa.Array.from_buffers(kind, len(values), [valid, _offsets(values)], children=[_members(members, kind)])
    if pa.types.is_string(kind):
        texts = [None if value is None else value.encode() for value in values]
        data = buffer(b"".join(text for text in texts if text is not None))
        return pa.Array.from_buffers(kind, len(values), [valid, _offsets(texts), data])
    if pa.types.is_boolean(kind):
        return pa.Array.from_buffers(kind, len(values), [valid, _bits(map(bool, values))])
    if pa.types.is_date32(kind):
        values = [None if value is None else value.toordinal() - FIRST_DAY for value in values]
    numbers = np.array([0 if value is None else value for value in values], _numpy_type(kind))
    return pa.Array.from_buffers(kind, len(values), [valid, buffer(numbers)])


def _members(members: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return what stands in the lists or the maps of a type, one after another."""
    if pa.types.is_list(kind):
        return array(members, kind.value_type)
    entry = pa.struct([pa.field("key", kind.key_type, nullable=False), pa.field("value", kind.item_type)])
    return array([{"key": key, "value": value} for key, value in members], entry)


def _offsets(values: Iterable[Any]) -> pa.Buffer:
    lengths = (0 if value is None else len(value) for value in values)
    return buffer(np.fromiter(accumulate(lengths, initial=0), np.int32))


def _bits(flags: Iterable[bool]) -> pa.Buffer:
    return buffer(np.packbits(np.fromiter(flags, np.bool_), bitorder="little"))


def _numpy_type(kind: pa.DataType) -> type[np.generic]:
    if pa.types.is_floating(kind):
        return np.float64
    return np.int32 if kind.bit_width == 32 else np.int8 if kind.bit_width == 8 else np.int64
