"""DuckDB engines of our own, for work on our own files."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import duckdb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def own_engine(spill: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a DuckDB of our own for a while: the caller's connection is busy with the caller's statement.

    What does not fit into memory goes to the directory `spill`, which is there only while it is needed.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "temp_directory": str(spill),
        "autoinstall_known_extensions": False,
    }
    with duckdb.connect(":memory:", config=config) as engine:
        engine.execute("SET preserve_insertion_order = false")
        yield engine
