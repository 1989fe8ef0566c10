"""Kept results that are in the store alone, brought back to where they lie under `home`."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from duckdb_mistral.state.names import line_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from duckdb_mistral.jobs.job import Job
    from duckdb_mistral.state.store import Store

#: A job has one file of answers and one of errors.
MOST_LINES = 2


def put_results(store: Store, results: Path, fetched: Path, lines: tuple[Path, ...]) -> None:
    """Put results, that lie at `fetched` with these result lines, where `results` will be; raises StoreError."""
    for number, path in enumerate(lines):
        store.put(line_path(results, number), path)
    store.put(results, fetched)  # without which the lines are not read


def bring_results(store: Store, results: Path, job: Job) -> bool:
    """Bring a job's results, and the lines beside them, if together they have the size that the ledger names.

    What the files say of themselves is for the caller to see. Raises StoreError if the store cannot be asked.
    """
    files = (results, *(line_path(results, number) for number in range(MOST_LINES)))
    sizes = [size for size in takewhile(lambda size: size is not None, store.sizes(files)) if size is not None]
    # Beside results that were fetched again may lie lines of those before.
    for count in range(len(sizes), 0, -1):
        if job.results_bytes in (sum(sizes[:count]), None):
            for file in files[count:]:
                file.unlink(missing_ok=True)
            # The lines first, without which a Parquet file is not whole.
            return all(store.get(files[number], _has(sizes[number])) for number in reversed(range(count)))
    return False


def _has(size: int) -> Callable[[Path], bool]:
    return lambda path: path.stat().st_size == size
