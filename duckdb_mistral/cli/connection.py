"""The connection on which a command runs its statement; DuckDB is imported only when one is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


def connect(database: str = ":memory:") -> duckdb.DuckDBPyConnection:
    """Open a database, with the functions and the environment's settings."""
    from duckdb_mistral.functions import register

    return register.connect(database)
