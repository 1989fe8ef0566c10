"""What `home` has only as a copy, because the store has it too; and what the store has that this ledger does not name.

Nothing is removed from the store: what this ledger does not name, another one may.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from duckdb_mistral.state.inventory import Kind
from duckdb_mistral.state.names import job_named, keys_path, results_lock, stem_of

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job
    from duckdb_mistral.state.inventory import Thing
    from duckdb_mistral.state.store import Store

#: What may be a copy; anything else is freed, or stays, as without a store.
COPIED = (Kind.RESULTS, Kind.ASKED, Kind.HASHES, Kind.NEEDED)


class Stored:
    """What the store of one context has, beside its ledger and its `home`."""

    def __init__(self, context: Context, store: Store) -> None:
        """List the store; raises StoreError."""
        self._home = context.home
        self._locks = context.locks
        self._sizes = store.files()
        self._ledger = context.ledger
        self._submissions = {submission.submission_id for submission in self._ledger.submissions()}
        self._jobs = {stem_of(self._home.kept(job.results)): job for job in self._ledger.jobs() if job.results}

    def judged(self, things: Generator[Thing, None, None]) -> Generator[Thing, None, None]:
        """Yield what lies under `home`, with what the store has too as copies."""
        with closing(things):
            for thing in things:
                if thing.kind in COPIED and self._has(thing):
                    yield replace(thing, kind=Kind.COPY, free=partial(self._free, thing))
                else:
                    yield thing

    def unnamed(self) -> list[int]:
        """Return the bytes of each file in the store that is of nothing that this ledger knows."""
        return [size for path, size in self._sizes.items() if not self._is_named(path)]

    def _has(self, thing: Thing) -> bool:
        """Tell whether the store has all files of a thing, as the ledger names them."""
        if not all(path in self._sizes and self._sizes[path] == _size(path) for path in thing.paths):
            return False
        if thing.kind is Kind.NEEDED and any(path != keys_path(path) for path in thing.paths):
            return False
        job = self._job_of(thing)
        return job is None or job.results_bytes == sum(self._sizes[path] for path in thing.paths)

    def _free(self, thing: Thing) -> bool:
        """Remove copies, unless a collector is at them just now."""
        job = self._job_of(thing)
        with ExitStack() as stack:
            if job is not None and not stack.enter_context(self._locks.trying(results_lock(job))):
                return False
            for path in thing.paths:
                path.unlink(missing_ok=True)
        return True

    def _job_of(self, thing: Thing) -> Job | None:
        """Return the job whose results a thing is; None where it is of requests."""
        path = thing.paths[0]
        return self._jobs.get(stem_of(path)) if path.parent == self._home.results else None

    def _is_named(self, path: Path) -> bool:
        submission_id = self._home.submission_of(path)
        if submission_id is not None:
            return submission_id in self._submissions
        if path.parent == self._home.results:
            stem = stem_of(path)
            return stem in self._jobs or self._ledger.job(job_named(stem)) is not None
        return path.parent.parent == self._home.spools and path.parent.name in self._submissions


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
