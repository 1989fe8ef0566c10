"""What is under `home`, and freeing what is no longer needed.

A thing is judged and freed while holding the locks of whoever may be writing it, by the ledger as it is then. The
ledger is only read. If a clean is killed, what is left of a thing is still of the same kind, so the next one frees it.
"""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from duckdb_mistral.batches.describe import describe
from duckdb_mistral.batches.fetch import PARTIAL, RETRY_SCRATCH, SCRATCH
from duckdb_mistral.batches.lookup import find
from duckdb_mistral.batches.retention import drop_requests, requests_needed
from duckdb_mistral.batches.reuse_files import COPIES, FOUND
from duckdb_mistral.batches.spools import MARK, abandoned_spools
from duckdb_mistral.duck.engine import SharedEngine
from duckdb_mistral.errors import LedgerError, NotEndedError, UnknownJobError
from duckdb_mistral.jobs.job import now, results_name
from duckdb_mistral.requests.spool import part_name
from duckdb_mistral.state.inventory import Kind, Thing, by_stem, entries, finished, heaped, is_unfinished, stem_of
from duckdb_mistral.state.sqlite import ASIDE, DIRECTORIES, LEDGER_FILES, is_lost

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job
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

    Raises LedgerError if the ledger is damaged or gone, in which case nothing is freed, or if a file cannot be freed.
    """
    try:
        if not _has_ledger(context.home):
            if asked.identifiers:
                raise UnknownJobError(_unknown(asked.identifiers[0], context.home))
            return heaped(_others(context.home), free=False)
        with closing(SharedEngine()) as engine:
            return heaped(Cleaner(context, engine, asked).things(), free=free)
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
        self._jobs = {stem_of(Path(job.results or results_name(job))): job for job in self._ledger.jobs()}
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
            raise UnknownJobError(_unknown(identifier, self._home))
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

    # The directories

    def _spools(self) -> Generator[Thing, None, None]:
        left = set()
        for path in abandoned_spools(self._home, self._ledger, self._locks):
            if path.is_dir():
                left.add(path)
                yield Thing(kind=Kind.LEFTOVER, paths=(path,))
        for path in entries(self._home / "spool"):
            if path in left:
                continue
            if self._ledger.submission(path.name) is not None:
                yield from self._parts(path)
            elif (path / MARK).exists():  # of a submission that the ledger has forgotten
                yield Thing(kind=Kind.NEEDED, paths=(path,))
            else:
                yield Thing(kind=Kind.BUSY if path.is_dir() else Kind.OTHER, paths=(path,))

    def _parts(self, directory: Path) -> Generator[Thing, None, None]:
        jobs = self._ledger.jobs(directory.name)
        for stem, paths in by_stem([path for path in entries(directory) if path.name != MARK]):
            its_jobs = [job for job in jobs if stem_of(Path(part_name(job.part))) == stem]
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
        found = entries(self._home / "results")
        for path in found:
            if not path.is_dir():
                continue
            if not path.name.startswith(SCRATCH):
                yield Thing(kind=Kind.OTHER, paths=(path,))
                continue
            with self._holding([_lock_of_scratch(path.name)]) as held:
                yield Thing(kind=Kind.LEFTOVER if held else Kind.BUSY, paths=(path,))
        yield from self._unfinished(found)
        for stem, paths in by_stem(finished(found)):
            if stem.startswith(FOUND):
                yield from self._reused(stem.removeprefix(FOUND), paths, Kind.RESULTS)
                continue
            job = self._job_of(stem)
            if job is None:
                yield Thing(kind=Kind.STRANGE, paths=paths)
            elif not self._is_asked(job):
                yield Thing(kind=Kind.RESULTS, paths=paths)
            else:
                with self._holding(_collecting([job])) as held:
                    yield Thing(kind=Kind.ASKED if held else Kind.BUSY, paths=paths)

    def _hashes(self) -> Generator[Thing, None, None]:
        found = entries(self._home / "requests")
        yield from self._unfinished(found)
        for stem, paths in by_stem(finished(found)):
            if stem.startswith(COPIES):
                yield from self._reused(stem.removeprefix(COPIES), paths, Kind.HASHES)
            else:
                yield Thing(kind=Kind.HASHES, paths=paths)

    def _unfinished(self, found: Iterable[Path]) -> Generator[Thing, None, None]:
        """Yield files that were being written when their process was killed, or are being written now."""
        for path in found:
            if path.is_file() and is_unfinished(path):
                with self._holding(self._locks_of(stem_of(path))) as held:
                    yield Thing(kind=Kind.LEFTOVER if held else Kind.BUSY, paths=(path,))

    def _reused(self, submission_id: str, paths: tuple[Path, ...], kind: Kind) -> Generator[Thing, None, None]:
        """Yield the files of what a submission reuses, written before it is recorded, under the lock of its spool."""
        with self._holding([f"spool-{submission_id}"]) as held:
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
        stems = [stem for stem, _ in by_stem(finished(entries(self._home / "results"))) if not stem.startswith(FOUND)]
        aside = any(self._home.glob(f"{ASIDE}*"))
        return not aside and bool(self._ledger.submissions()) and all(map(self._job_of, stems))

    def _job_of(self, stem: str) -> Job | None:
        """Return the job whose results a file holds, whoever created the job."""
        stem = stem.removeprefix(PARTIAL)
        return self._jobs.get(stem) or self._ledger.job(stem)

    def _locks_of(self, stem: str) -> list[str]:
        """Return the locks of whoever may be writing files of this stem."""
        if stem.startswith((FOUND, COPIES)):
            return [f"spool-{stem.partition('-')[2]}"]
        job = self._job_of(stem)
        submission_id, _, part = stem.rpartition("-")
        hashed = [job for job in self._ledger.jobs(submission_id or stem) if str(job.part) == part]
        return _collecting([job] if job is not None else hashed)

    @contextmanager
    def _holding(self, names: Iterable[str]) -> Iterator[bool]:
        """Hold the locks if all of them are free; yields whether they are held."""
        with ExitStack() as stack:
            yield all(stack.enter_context(self._locks.trying(name)) for name in names)


def _has_ledger(home: Path) -> bool:
    """Tell whether there is a ledger; raise LedgerError if there is none, but files that only a ledger explains."""
    if is_lost(home):
        raise LedgerError(
            f"There is no ledger under {home} to say which of the files there are still needed, so nothing was "
            "removed. `duckdb-mistral doctor --repair` rebuilds it from the workspace's jobs."
        )
    return (home / LEDGER_FILES[0]).exists()


def _opened(context: Context) -> Ledger:
    try:
        return context.ledger
    except LedgerError as error:
        raise LedgerError(f"{error} Nothing was removed.") from error


def _unknown(identifier: str, home: Path) -> str:
    return f"There is no submission or job {identifier} in the ledger under {home}. Nothing was removed."


def _others(home: Path) -> Generator[Thing, None, None]:
    """Yield what is beside the directories of requests and results."""
    for path in entries(home):
        if path.name in LEDGER_FILES:
            yield Thing(kind=Kind.LEDGER, paths=(path,))
        elif path.name.startswith(ASIDE):
            yield Thing(kind=Kind.ASIDE, paths=(path,))
        elif path.name not in DIRECTORIES:
            yield Thing(kind=Kind.LOCKS if path.name == "locks" else Kind.OTHER, paths=(path,))


def _collecting(jobs: Iterable[Job]) -> list[str]:
    """Return the locks of whoever may be collecting the results of jobs."""
    return [f"results-{job.key}" for job in jobs]


def _lock_of_scratch(name: str) -> str:
    """Return the lock of whoever may be using a scratch directory: a collector, or a retry that fills a spool."""
    kind, lock = (RETRY_SCRATCH, "spool") if name.startswith(RETRY_SCRATCH) else (SCRATCH, "results")
    return f"{lock}-{name.removeprefix(kind)}"
