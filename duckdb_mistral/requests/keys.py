"""The keys of spooled requests, in a file beside each part: custom_ids, and the hashes of the bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from duckdb_mistral.state.names import keys_path

if TYPE_CHECKING:
    from pathlib import Path

#: Keys are written in pieces of this many bytes.
KEYS_BUFFER = 1 << 20
#: The keys of a part; `request` is the MD5 of the body as hexadecimal digits.
KEYS = pa.schema([("custom_id", pa.string()), ("request", pa.string())])


def new_keys_file(path: Path) -> Any:
    """Return a file that Arrow writes to itself: a batch is ten pieces, each of which would be a Python call."""
    # Do not create it first and reopen it: a truncated file is flushed to the disk when it closes.
    file = pa.OSFile(str(path), "wb")
    path.chmod(0o600)
    return pa.BufferedOutputStream(file, KEYS_BUFFER)


def read_keys(part: Path) -> pa.Table | None:
    """Return the keys of a part as a table of the schema KEYS, mapped from disk; None if they cannot be read."""
    return keys_in(keys_path(part))


def keys_in(path: Path) -> pa.Table | None:
    """Return the keys of a file of keys, as `read_keys` does of a part's."""
    try:
        with pa.memory_map(str(path)) as source:
            keys = pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowInvalid):
        return None
    return keys if keys.schema == KEYS else None
