"""What kept files say of themselves, so that a file of another job in the place of one of ours is not taken for it."""

from __future__ import annotations

import hashlib
import json
import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from duckdb_mistral.duck.quoting import literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

#: The key of it in a Parquet file's own metadata.
KEY = "duckdb_mistral"
#: Of lines beside a Parquet file so many bytes are looked at, at both ends: they hold ids that no other file's do.
ENDS = 1 << 16
#: Files that were looked at are remembered as long as they are not changed.
REMEMBERED = 4096


def option(said: Mapping[str, Any]) -> str:
    """Return the option of DuckDB's COPY that lets a Parquet file say something of itself."""
    return f"KV_METADATA {{{KEY}: {literal(json.dumps(said, sort_keys=True))}}}"


def said_by(path: Path) -> tuple[dict[str, Any], int] | None:
    """Return what a Parquet file says of itself, and how many rows it has; None for what is no Parquet.

    A file that an older version wrote says nothing. Raises FileNotFoundError.
    """
    status = path.stat()
    return _said_by(path, (status.st_ino, status.st_size, status.st_mtime_ns))


def is_of(path: Path, **wanted: Any) -> bool:
    """Tell whether a Parquet file is what is wanted, or says nothing of itself; raises FileNotFoundError."""
    found = said_by(path)
    return found is not None and (not found[0] or wanted.items() <= found[0].items())


def digests(paths: Sequence[Path]) -> list[str]:
    """Return what tells files of result lines from those of another job; raises FileNotFoundError."""
    statuses = [(path, path.stat()) for path in paths]
    return [_digest(path, (status.st_ino, status.st_size, status.st_mtime_ns)) for path, status in statuses]


@lru_cache(REMEMBERED)
def _said_by(path: Path, _: tuple[int, int, int]) -> tuple[dict[str, Any], int] | None:
    from pyarrow import ArrowException, parquet

    try:
        metadata = parquet.read_metadata(path)
        said = json.loads((metadata.metadata or {}).get(KEY.encode(), b"{}"))
    except (ArrowException, OSError, ValueError):
        return None
    return (said, metadata.num_rows) if isinstance(said, dict) else None


@lru_cache(REMEMBERED)
def _digest(path: Path, version: tuple[int, int, int]) -> str:
    _, size, _ = version
    with path.open("rb") as file:
        start = file.read(ENDS)
        file.seek(-min(size, ENDS), os.SEEK_END)
        return hashlib.sha256(b"%d\n" % size + start + file.read(ENDS)).hexdigest()
