"""Results that are in the store alone: brought with their lines, if together they are as large as the ledger says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support import ended_job

from duckdb_mistral.results.bring import bring_results, put_results
from duckdb_mistral.state.names import line_path
from duckdb_mistral.state.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.jobs.job import Job


@pytest.fixture
def store(home: Path, tmp_path: Path) -> Store:
    """Return a store that has results of ten bytes, with lines of twenty and of thirty beside them."""
    directory = tmp_path / "store"
    directory.mkdir()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    fetched, lines = scratch / "job.parquet", (scratch / "answers-0.jsonl", scratch / "answers-1.jsonl")
    for path, size in zip((fetched, *lines), (10, 20, 30), strict=True):
        path.write_bytes(b"x" * size)
    store = Store(f"file://{directory}", home)
    put_results(store, home / "results" / "job.parquet", fetched, lines)
    return store


def kept(size: int | None) -> Job:
    """Return a job whose kept results have so many bytes."""
    return ended_job(3).evolve(results="job.parquet", results_bytes=size)


@pytest.mark.parametrize(("size", "lines"), [(60, 2), (None, 2), (30, 1), (10, 0)])
def test_as_large_as_recorded(size: int | None, lines: int, store: Store, home: Path) -> None:
    """As many lines come as make up the recorded size: others are of results that were put before; here they go."""
    path = home / "results" / "job.parquet"
    path.parent.mkdir(parents=True)
    line_path(path, 1).write_bytes(b"of results before")
    assert bring_results(store, path, kept(size))
    there = [number for number in range(3) if line_path(path, number).exists()]
    assert there == list(range(lines))
    assert sum(file.stat().st_size for file in path.parent.iterdir()) == (size or 60)


@pytest.mark.parametrize("size", [0, 11, 59, 61])
def test_of_another_size(size: int, store: Store, home: Path) -> None:
    """Results of another size are not brought."""
    path = home / "results" / "job.parquet"
    assert not bring_results(store, path, kept(size))
    assert not path.exists()
