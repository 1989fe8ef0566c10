"""Carrying the files that other machines may need between `home` and the store, as far as one ledger knows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from duckdb_mistral.requests.keys import keys_in
from duckdb_mistral.results.bring import put_results
from duckdb_mistral.results.provenance import said_by
from duckdb_mistral.results.responses import kept_results, lines_of, size_of
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.inventory import entries, finished
from duckdb_mistral.state.moving import record_sizes
from duckdb_mistral.state.names import keys_path, results_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from duckdb_mistral.jobs.job import Job
    from duckdb_mistral.state.locks import Locks
    from duckdb_mistral.state.reading import LedgerReader
    from duckdb_mistral.state.store import Store


@dataclass(kw_only=True)
class Carried:
    """How many files went to where they belong."""

    files: int = 0
    #: The bytes of those files.
    size: int = 0
    #: Files that were there already.
    there: int = 0
    #: Results that the ledger names and that are in neither place, by job.
    lost: int = 0


class Carrier:
    """Carries files between one `home` and its store, and counts them."""

    def __init__(self, home: Home, store: Store, watch: Callable[[Carried], object]) -> None:
        """List the store; raises StoreError. `watch` sees the counts whenever a file has been carried."""
        self.counts = Carried()
        self._watch = watch
        self._home = home
        self._here = Home(home.path)  # what lies here alone
        self._store = store
        self._sizes = store.files()
        self._counted: set[Path] = set()

    def put(self, ledger: LedgerReader, locks: Locks, *, recorded: bool = False) -> None:
        """Put what the store lacks of what `ledger` knows and lies here; raises StoreError.

        Where it is `recorded`, the ledger gets to know the sizes of results that it names without one.
        """
        sizes = {}
        for job in ledger.jobs():
            size = self._put_results(job, locks)
            if size is not None and job.results is not None and job.results_bytes is None:
                sizes[job.key] = (job.results, size)
        if recorded:
            record_sizes(ledger.database, sizes)
        for path in self._others_here({submission.submission_id for submission in ledger.submissions()}):
            if path in self._sizes:
                self._found(path)
                continue
            self._store.put(path)
            self._sizes[path] = path.stat().st_size
            self._carried(path)

    def bring(self, ledger: LedgerReader) -> None:
        """Bring what `home` lacks of what `ledger` knows and lies in the store; raises StoreError."""
        jobs = ledger.jobs()
        for job in jobs:
            if job.results is None:
                continue
            kept = kept_results(self._here, job)
            if kept is not None:
                self._found(*_files_of(kept))
                continue
            brought = kept_results(self._home, job)
            if brought is None:
                self.counts.lost += 1
            else:
                self._carried(*_files_of(brought))
        known = {submission.submission_id for submission in ledger.submissions()}
        unanswered = {self._home.part(job.submission_id or "", job.part) for job in jobs if job.results is None}
        wanted = {keys_path(part) for part in unanswered}
        for path in self._sizes:
            if path not in wanted and self._home.submission_of(path) not in known:
                continue
            if path.exists():
                self._found(path)
            elif self._store.get(path, _is_whole):
                self._carried(path)

    def _put_results(self, job: Job, locks: Locks) -> int | None:
        """Put the results of a job, if they lie here whole; return their bytes, None where those here do not count."""
        kept = kept_results(self._here, job)
        if kept is None:
            return None
        if self._has(kept, job):
            self._found(*_files_of(kept))
            return size_of(kept) if self._is_same(kept) else None
        with locks.waiting(results_lock(job)):  # they may just be fetched again
            if kept_results(self._here, job) is None:
                return None
            put_results(self._store, kept, kept, tuple(lines_of(kept)))
            self._sizes |= {path: path.stat().st_size for path in _files_of(kept)}
            self._carried(*_files_of(kept))
            return size_of(kept)

    def _has(self, kept: Path, job: Job) -> bool:
        """Tell whether the store has a job's results: those of another home will do where no size is recorded."""
        return self._is_same(kept) if job.results_bytes is not None else kept in self._sizes

    def _is_same(self, kept: Path) -> bool:
        return all(self._sizes.get(path) == path.stat().st_size for path in _files_of(kept))

    def _carried(self, *paths: Path) -> None:
        self.counts.files += len(paths)
        self.counts.size += sum(path.stat().st_size for path in paths)
        self._counted.update(paths)
        self._watch(self.counts)

    def _found(self, *paths: Path) -> None:
        """Count files that are where they belong, unless they have just been carried there."""
        self.counts.there += len({*paths} - self._counted)
        self._counted.update(paths)

    def _others_here(self, known: set[str]) -> Iterator[Path]:
        """Yield the files under `home`, beside results of jobs, that submissions need on other machines too."""
        for directory in (self._home.results, self._home.hashed):
            for path in finished(entries(directory)):
                if self._home.submission_of(path) in known:
                    yield path
        for submission_id in sorted(known):
            for path in entries(self._home.spool(submission_id)):
                if path == keys_path(path):
                    yield path


def _files_of(kept: Path) -> tuple[Path, ...]:
    """Return the files that a job's results are."""
    return kept, *lines_of(kept)


def _is_whole(path: Path) -> bool:
    return said_by(path) is not None or keys_in(path) is not None
