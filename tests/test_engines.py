"""DuckDB engines of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duckdb_mistral.engines import own_engine

if TYPE_CHECKING:
    from pathlib import Path


def test_more_than_memory_holds(tmp_path: Path) -> None:
    """What does not fit into memory is put into the directory that was named, which is gone in the end."""
    spill = tmp_path / "spill"
    with own_engine(spill) as engine:
        engine.execute("SET memory_limit = '60MB'")
        engine.execute("SET threads = 1")
        engine.execute("CREATE TEMP TABLE many AS SELECT md5(range::VARCHAR) AS text FROM range(3_000_000)")
        assert spill.exists()
        assert engine.execute("SELECT count(*) FROM many").fetchall() == [(3_000_000,)]
    assert not spill.exists()
