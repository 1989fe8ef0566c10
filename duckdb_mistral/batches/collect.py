"""Collecting: which results an id names, and where they lie once they are kept."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from duckdb_mistral.batches import late
from duckdb_mistral.batches.describe import describe, not_known, not_sent
from duckdb_mistral.batches.download import Missing
from duckdb_mistral.batches.fetch import Fetcher
from duckdb_mistral.batches.lookup import find
from duckdb_mistral.batches.reuse_files import kept_copies
from duckdb_mistral.batches.track import poll, status, unsent
from duckdb_mistral.errors import NotEndedError
from duckdb_mistral.jobs.tags import Tags
from duckdb_mistral.results.responses import kept_results
from duckdb_mistral.runtime.parallel import together

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job

#: While the files of one job are converted, those of the next are downloaded; the disk holds no more of them.
FETCHES_AT_ONCE = 2


@dataclass(frozen=True, kw_only=True)
class Family:
    """The kept results of the same requests on one model: each generation sends again what the one before left."""

    model: str
    generations: tuple[tuple[Path, ...], ...]
    #: What the first generation is of; None where that is another program's job.
    submission_id: str | None = None
    #: Which rows share the request of another one.
    copies: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Collected:
    """The Parquet files that hold the results asked for, and what is needed to read them."""

    families: tuple[Family, ...]
    output: str | None = None


def collect(context: Context, identifier: str | None, *, partial: bool = False) -> Collected:
    """Return the results of an id, or of every ended submission, fetching what is not kept yet.

    Raises NotEndedError if a job of the id has not ended, and IncompleteResultsError if the files hold
    less than the counts promise; with `partial` a retry that runs is left out, and such rows are missing.
    """
    missing = Missing.ANY if partial else Missing.NONE
    with context.ledger.kept_open(), closing(Fetcher(context)) as fetcher:
        if identifier is not None:
            return _collected(context, fetcher, [_ended(context, fetcher, identifier, partial=partial)], missing)
        groups = _all_ended(context, fetcher, partial=partial)
        return _collected(context, fetcher, groups, missing, all_told=False)


def collect_to_retry(context: Context, identifier: str) -> Collected:
    """Return the results of an id, where a row that was answered is missing only if the server lost its file.

    Files of results that are kept with rows missing are fetched again: more may be in them by now. Raises as
    `collect` does.
    """
    with context.ledger.kept_open(), closing(Fetcher(context)) as fetcher:
        return _collected(context, fetcher, [_ended(context, fetcher, identifier, partial=False)], Missing.PAID)


def _collected(
    context: Context, fetcher: Fetcher, groups: Sequence[Sequence[Job]], missing: Missing, *, all_told: bool = True
) -> Collected:
    families: list[Family] = []
    found: list[Job] = []
    for jobs in groups:
        try:
            families += _families(context, fetcher, jobs, missing)
        except NotEndedError:  # its end was taken back
            if all_told:
                raise
        else:
            found += jobs
    return Collected(families=tuple(families), output=_output(context, found))


# Which jobs


def _ended(context: Context, fetcher: Fetcher, identifier: str, *, partial: bool) -> list[Job]:
    """Return the jobs of an id whose results are to be read, its retries after them."""
    jobs, gone = find(context, identifier), set()
    if not all(job.ended for job in jobs):
        polled = poll(context, identifier)
        jobs, gone = polled.jobs, {job.key for job in polled.gone}
        if gone and not partial:
            raise not_known(context, polled.gone[0])
    jobs = late.ask_to_read(context, fetcher.engine, jobs)
    ended = _without_running(jobs, gone | _kept_anyway(context, jobs) if partial else gone)
    planned = [] if ended else unsent(context, jobs)
    if planned:
        raise not_sent(context, planned)
    if not ended or (len(ended) < len(jobs) and not partial):
        without = " Until then partial := true reads the results without the retry." if ended else ""
        raise NotEndedError(
            f"{describe(jobs)} Results can be read once everything has ended: "
            f"FROM mistral_batch_wait('{identifier}') waits for it.{without}"
        )
    return ended


def _all_ended(context: Context, fetcher: Fetcher, *, partial: bool) -> list[list[Job]]:
    """Return the jobs of every ended submission, those of the same requests together, their retries after them."""
    jobs = context.ledger.jobs()
    if not all(job.ended for job in jobs):
        jobs = status(context).jobs
    jobs = late.ask_to_read(context, fetcher.engine, jobs)
    there = _kept_anyway(context, jobs) if partial else set()
    groups = [_without_running(group, there) for group in _groups(context, jobs)]
    return [group for group in groups if group and not any(_lies_elsewhere(context, job) for job in group)]


def _kept_anyway(context: Context, jobs: Sequence[Job]) -> set[int]:
    """Return the keys of jobs that are running again, but whose results are kept: those can be read all the same."""
    return {job.key for job in jobs if not job.ended and kept_results(context.home, job) is not None}


def _lies_elsewhere(context: Context, job: Job) -> bool:
    """Tell whether a job's results are to be had from another server alone."""
    elsewhere = job.server_url != context.settings.server_url
    return elsewhere and job.job_id is not None and kept_results(context.home, job) is None


def _groups(context: Context, jobs: Sequence[Job]) -> list[list[Job]]:
    """Put each submission's jobs, or a job that has none, together with those of its retries."""
    parents = {one.submission_id: one.retry_of for one in context.ledger.submissions()}
    homes = {job.job_id: job.submission_id or job.job_id for job in jobs}
    groups: dict[str | None, list[Job]] = {}
    for job in jobs:
        root = job.submission_id or job.job_id
        while (parent := parents.get(root or "")) is not None:
            root = homes.get(parent, parent)
        groups.setdefault(root, []).append(job)
    return list(groups.values())


def _without_running(jobs: Sequence[Job], gone: Collection[int] = ()) -> list[Job]:
    """Return jobs and their retries without the retries that have not ended; none where the first has not.

    Jobs that the workspace no longer knows, given by their keys, are not waited for.
    """
    running = {job.submission_id for job in jobs if not job.ended and job.key not in gone}
    return [] if jobs[0].submission_id in running else [job for job in jobs if job.submission_id not in running]


# Their files


def _families(context: Context, fetcher: Fetcher, jobs: Sequence[Job], missing: Missing) -> Iterable[Family]:
    """Divide jobs by model, and each model's by submission, in order."""
    by_model: dict[str, dict[str | None, list[Path]]] = {}
    fetched = _fetched(context, fetcher, jobs, missing)
    for job in jobs:
        files = by_model.setdefault(job.model, {}).setdefault(job.submission_id, [])
        files.append(fetched.get(job.key) or fetcher.file(job, missing))
    for model, generations in by_model.items():
        first = next(iter(generations))
        yield Family(
            model=model,
            generations=tuple(map(tuple, generations.values())),
            submission_id=first,
            copies=kept_copies(context.home, first or "", _told_copies(context, first)),
        )


def _told_copies(context: Context, submission_id: str | None) -> int:
    """Return how many rows of a submission share a request, if a store has to have the list of them."""
    submission = context.ledger.submission(submission_id) if context.home.store and submission_id else None
    return 0 if submission is None else Tags.from_metadata(submission.metadata).copies


def _fetched(context: Context, fetcher: Fetcher, jobs: Sequence[Job], missing: Missing) -> dict[int, Path]:
    """Fetch the results of jobs that are not kept, where they are several; return their files by the jobs' keys."""
    files: dict[int, Path] = {}
    unkept = [job for job in jobs if kept_results(context.home, job) is None]
    if len(unkept) > 1:
        together(
            unkept,
            lambda job: fetcher.file(job, missing),
            lambda job, path: files.update({job.key: path}),
            threads=FETCHES_AT_ONCE,
            daemon=False,  # Python must not end in the middle of DuckDB
        )
    return files


def _output(context: Context, jobs: Sequence[Job]) -> str | None:
    """Return the declared output type, where all jobs share one."""
    ids = dict.fromkeys(job.submission_id for job in jobs)
    found = [context.ledger.submission(submission_id) for submission_id in ids if submission_id]
    types = {submission.output for submission in found if submission is not None}
    return types.pop() if len(types) == 1 and len(found) == len(ids) else None
