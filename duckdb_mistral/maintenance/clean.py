"""What is under `home`, and freeing what is no longer needed.

A thing is judged and freed while holding the locks of whoever may be writing it, by the ledger as it is then. The
ledger is only read. If a clean is killed, what is left of a thing is still of the same kind, so the next one frees it.
"""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import duckdb

from duckdb_mistral.batches.describe import describe
from duckdb_mistral.batches.lookup import find
from duckdb_mistral.batches.retention import drop_requests, requests_needed
from duckdb_mistral.batches.spools import abandoned_spools
from duckdb_mistral.duck.engine import SharedEngine
from duckdb_mistral.errors import LedgerError, NotEndedError, UnknownJobError
from duckdb_mistral.jobs.job import now
from duckdb_mistral.maintenance.stored import Stored
from duckdb_mistral.state.inventory import Kind, Thing, by_stem, entries, finished, heaped
from duckdb_mistral.state.names import (
    copied_by,
    found_by,
    hashed_part,
    is_partial,
    is_scratch,
    is_unfinished,
    job_named,
    mark_path,
    part_path,
    results_lock,
    scratch_lock,
    spool_lock,
    stem_of,
)
from duckdb_mistral.state.sqlite import is_lost

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from pathlib import Path

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job
    from duckdb_mistral.state.home import Home
    from duckdb_mistral.state.inventory import Heap
    from duckdb_mistral.state.ledger import Ledger

DAY = 24 * 3600 * 1_000_000


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which kept results to free as well: those of submissions and jobs by id, and of ended ones by age."""

    identifiers: tuple[str, ...] = ()
    older_than_days: int | None = None


def clean(context: Context, asked: Asked, *, free: bool) -> list[Heap]:
    """Return what is under `home`, kind by kind; with `free`, also free what can be freed.

    What the store has is freed under `home`, and stays there. Raises LedgerError if the ledger is damaged or gone, or
    the store cannot be listed, in which case nothing is freed, or if a file cannot be freed.
    """
    try:
        if context.settings.ledger is None and not _has_ledger(context.home):
            if asked.identifiers:
                raise UnknownJobError(_unknown(asked.identifiers[0], f"under {context.home}"))
            return heaped(_others(context.home), free=False)
        with closing(SharedEngine()) as engine:
            things, store = Cleaner(context, engine, asked).things(), context.home.store
            return heaped(things if store is None else Stored(context, store).judged(things), free=free)
    except OSError as error:
        raise LedgerError(
            f"{error.filename or context.home} could not be read or removed ({error.strerror}). Some space may have "
            "been freed before that; fix the problem and run the same command again for the rest."
        ) from error


class Cleaner:
    """Looks through the `home` of one context."""

    def __init__(self, context: Context, engine: SharedEngine, asked: Asked) -> None:
        """Read the ledger; raises UnknownJobError or NotEndedError if what is asked for cannot be freed."""
        self._context = context
        self._ledger = _opened(context)
        self._home = context.home
        self._locks = context.locks
        self._engine = engine
        self._oldest = None if asked.older_than_days is None else now() - asked.older_than_days * DAY
        self._jobs = {stem_of(self._file_of(job)): job for job in self._ledger.jobs()}
        self._asked = {job.key for identifier in asked.identifiers for job in self._named(identifier)}
        self._asked |= {job.key for job in self._aged()}
        self._remembers = self._remembers_all()

    def things(self) -> Generator[Thing, None, None]:
        """Yield everything there; the locks of a thing that can be freed are held until the next thing."""
        yield from self._spools()
        yield from self._results()
        yield from self._hashes()
        yield from _others(self._home)

    # What is asked for

    def _named(self, identifier: str) -> list[Job]:
        if self._ledger.submission(identifier) is None and self._ledger.job(identifier) is None:
            raise UnknownJobError(_unknown(identifier, self._ledger.place))
        jobs = find(self._context, identifier)
        if not all(job.ended for job in jobs):
            raise NotEndedError(
                f"{describe(jobs)} That is its last known state; its results can be freed once it has ended. "
                "Nothing was removed."
            )
        return jobs

    def _aged(self) -> Iterator[Job]:
        if self._oldest is None:
            return
        for submission in self._ledger.submissions():
            if submission.created_at <= self._oldest:
                jobs = find(self._context, submission.submission_id)
                if all(job.ended for job in jobs):
                    yield from (job for job in jobs if job.submission_id == submission.submission_id)

    def _is_asked(self, job: Job) -> bool:
        """Tell whether to free the results of a job; another program's job counts by its own age."""
        if job.submission_id is None and self._oldest is not None and job.created_here_at <= self._oldest:
            return job.ended
        return job.key in self._asked

    def _file_of(self, job: Job) -> Path:
        return self._home.results_of(job) if job.results is None else self._home.kept(job.results)

    # The directories

    def _spools(self) -> Generator[Thing, None, None]:
        left = set()
        for path in abandoned_spools(self._home, self._ledger, self._locks):
            if path.is_dir():
                left.add(path)
                yield Thing(kind=Kind.LEFTOVER, paths=(path,))
        for path in entries(self._home.spools):
            if path in left:
                continue
            if self._ledger.submission(path.name) is not None:
                yield from self._parts(path)
            elif mark_path(path).exists():  # of a submission that the ledger has forgotten
                yield Thing(kind=Kind.NEEDED, paths=(path,))
            else:
                yield Thing(kind=Kind.BUSY if path.is_dir() else Kind.OTHER, paths=(path,))

    def _parts(self, directory: Path) -> Generator[Thing, None, None]:
        jobs = self._ledger.jobs(directory.name)
        for stem, paths in by_stem([path for path in entries(directory) if path != mark_path(directory)]):
            its_jobs = [job for job in jobs if stem_of(part_path(directory, job.part)) == stem]
            if not its_jobs or any(job.results is None for job in its_jobs):
                yield Thing(kind=Kind.NEEDED, paths=paths)
                continue
            with self._holding(_collecting(its_jobs)) as held:
                if held and not self._are_needed(its_jobs[0]):
                    free = partial(drop_requests, self._context, self._engine, its_jobs[0])
                    yield Thing(kind=Kind.ANSWERED, paths=paths, free=free)
                else:
                    yield Thing(kind=Kind.NEEDED, paths=paths)

    def _are_needed(self, job: Job) -> bool:
        try:
            return requests_needed(self._context, self._engine, job.submission_id or "", job.part)
        except duckdb.Error:  # results of the right size that cannot be read
            return True

    def _results(self) -> Generator[Thing, None, None]:
        found = entries(self._home.results)
        for path in found:
            if not path.is_dir():
                continue
            if not is_scratch(path):
                yield Thing(kind=Kind.OTHER, paths=(path,))
                continue
            with self._holding([scratch_lock(path)]) as held:
                yield Thing(kind=Kind.LEFTOVER if held else Kind.BUSY, paths=(path,))
        yield from self._unfinished(found)
        for stem, paths in by_stem(finished(found)):
            submission_id = found_by(stem)
            if submission_id is not None:
                yield from self._reused(submission_id, paths, Kind.RESULTS)
                continue
            job = self._job_of(stem)
            # Whoever keeps whole results removes the partial ones of its own home alone.
            is_replaced = is_partial(stem) and job is not None and job.results is not None
            if job is None:
                yield Thing(kind=Kind.STRANGE, paths=paths)
            elif not is_replaced and not self._is_asked(job):
                yield Thing(kind=Kind.RESULTS, paths=paths)
            else:
                kind = Kind.REPLACED if is_replaced else Kind.ASKED
                with self._holding(_collecting([job])) as held:
                    yield Thing(kind=kind if held else Kind.BUSY, paths=paths)

    def _hashes(self) -> Generator[Thing, None, None]:
        found = entries(self._home.hashed)
        yield from self._unfinished(found)
        for stem, paths in by_stem(finished(found)):
            submission_id = copied_by(stem)
            if submission_id is None:
                yield Thing(kind=Kind.HASHES, paths=paths)
            else:
                yield from self._reused(submission_id, paths, Kind.HASHES)

    def _unfinished(self, found: Iterable[Path]) -> Generator[Thing, None, None]:
        """Yield files that were being written when their process was killed, or are being written now."""
        for path in found:
            if path.is_file() and is_unfinished(path):
                with self._holding(self._locks_of(stem_of(path))) as held:
                    yield Thing(kind=Kind.LEFTOVER if held else Kind.BUSY, paths=(path,))

    def _reused(self, submission_id: str, paths: tuple[Path, ...], kind: Kind) -> Generator[Thing, None, None]:
        """Yield the files of what a submission reuses, written before it is recorded, under the lock of its spool."""
        with self._holding([spool_lock(submission_id)]) as held:
            if self._ledger.submission(submission_id) is not None:
                yield Thing(kind=kind, paths=paths)
            elif not held:
                yield Thing(kind=Kind.BUSY, paths=paths)
            else:
                yield Thing(kind=Kind.LEFTOVER if self._remembers else Kind.STRANGE, paths=paths)

    # What belongs to what

    def _remembers_all(self) -> bool:
        """Tell whether, as far as can be seen, this `home` has never had another ledger.

        Otherwise the ledger may have forgotten submissions, and what they reused must stay for a repair.
        """
        stems = [stem for stem, _ in by_stem(finished(entries(self._home.results))) if found_by(stem) is None]
        return not self._home.asides and bool(self._ledger.submissions()) and all(map(self._job_of, stems))

    def _job_of(self, stem: str) -> Job | None:
        """Return the job whose results a file holds, whoever created the job."""
        stem = job_named(stem)
        return self._jobs.get(stem) or self._ledger.job(stem)

    def _locks_of(self, stem: str) -> list[str]:
        """Return the locks of whoever may be writing files of this stem."""
        for submission_id in (found_by(stem), copied_by(stem)):
            if submission_id is not None:
                return [spool_lock(submission_id)]
        job = self._job_of(stem)
        submission_id, part = hashed_part(stem)
        hashed = [job for job in self._ledger.jobs(submission_id) if str(job.part) == part]
        return _collecting([job] if job is not None else hashed)

    @contextmanager
    def _holding(self, names: Iterable[str]) -> Iterator[bool]:
        """Hold the locks if all of them are free; yields whether they are held."""
        with ExitStack() as stack:
            yield all(stack.enter_context(self._locks.trying(name)) for name in names)


def _has_ledger(home: Home) -> bool:
    """Tell whether there is a ledger; raise LedgerError if there is none, but files that only a ledger explains."""
    if is_lost(home):
        raise LedgerError(
            f"There is no ledger under {home} to say which of the files there are still needed, so nothing was "
            "removed. `duckdb-mistral doctor --repair` rebuilds it from the workspace's jobs."
        )
    return home.ledger.exists()


def _opened(context: Context) -> Ledger:
    try:
        return context.ledger
    except LedgerError as error:
        raise LedgerError(f"{error} Nothing was removed.") from error


def _unknown(identifier: str, place: str) -> str:
    return f"There is no submission or job {identifier} in the ledger {place}. Nothing was removed."


def _others(home: Home) -> Generator[Thing, None, None]:
    """Yield what is beside the directories of requests and results."""
    asides = home.asides
    for path in entries(home.path):
        if path in home.ledger_files:
            yield Thing(kind=Kind.LEDGER, paths=(path,))
        elif path in asides:
            yield Thing(kind=Kind.ASIDE, paths=(path,))
        elif path not in home.explained:
            yield Thing(kind=Kind.LOCKS if path == home.locks else Kind.OTHER, paths=(path,))


def _collecting(jobs: Iterable[Job]) -> list[str]:
    """Return the locks of whoever may be collecting the results of jobs."""
    return [results_lock(job) for job in jobs]
