"""Restoring what a ledger does not know of submissions, from the workspace's jobs and the files under `home`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import parquet

from duckdb_mistral.batches.find import CANCELLING
from duckdb_mistral.batches.reuse_files import bring_reused
from duckdb_mistral.batches.submissions import Jobs, listed_submissions, may_do
from duckdb_mistral.jobs.job import LOST, Job, Part, Step, Submission
from duckdb_mistral.jobs.tags import counted
from duckdb_mistral.results.bring import put_results
from duckdb_mistral.results.columns import COLUMNS, LINED
from duckdb_mistral.results.responses import kept_results, lines_of, size_of
from duckdb_mistral.state.inventory import entries as files_in
from duckdb_mistral.state.names import part_number, results_lock

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.plan import Plan
    from duckdb_mistral.jobs.report import JobReport
    from duckdb_mistral.state.home import Home

#: In the ledger's microseconds.
SECOND = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Restored:
    """How much was restored."""

    submissions: int
    jobs: int
    #: Jobs that had not been sent, and whose requests wait here.
    unsent_jobs: int


def restore(context: Context, reports: Iterable[JobReport], plan: Plan | None = None) -> Restored:
    """Restore into the ledger what it does not know; `plan` tells what the jobs do not, of submissions like it."""
    submissions = jobs = unsent = 0
    found = listed_submissions(context, reports)
    hopeful = _hopeful(found)
    # Oldest first: of two submissions of the same content, the later one counts, unless it alone failed as a whole.
    for submission, entries in found:
        known = context.ledger.submission(submission.submission_id)
        if known is not None:
            jobs += _caught_up(context, known, entries)
            continue
        if plan is not None:
            submission = replace(submission, output=plan.output, timeout_hours=plan.timeout_hours)
        unsent += _added(context, submission, entries, hopeful)
        submissions += 1
        jobs += len(entries)
    _keep_results(context)
    return Restored(submissions=submissions, jobs=jobs, unsent_jobs=unsent)


def _hopeful(found: Sequence[tuple[Submission, Jobs]]) -> set[str]:
    """Return the ids of the submissions that have answers, or may come to have them, in their retries too."""
    owners = {report.job_id: submission.submission_id for submission, entries in found for report in entries.values()}
    hopeful: set[str] = set()
    for submission, entries in reversed(found):  # a retry comes after what it retries
        if submission.submission_id in hopeful or may_do(entries.values()):
            hopeful.add(submission.submission_id)
            if submission.retry_of is not None:
                hopeful.add(owners.get(submission.retry_of, submission.retry_of))
    return hopeful


def _added(context: Context, submission: Submission, entries: Jobs, hopeful: Collection[str]) -> int:
    """Add a submission that the ledger does not know; return the number of its jobs that were not sent.

    `hopeful` are the ids of the submissions, among those that are being restored, that have not failed as a whole.
    """
    home, ledger = context.home, context.ledger
    bring_reused(home, submission.submission_id, counted(report.tags for report in entries.values()))
    parts = _parts(home, submission, entries)
    answered = _answered(home.found(submission.submission_id))
    live = _is_complete(home, submission, entries, parts, answered is not None) and _is_better(
        context, submission, hopeful
    )
    submission = replace(submission, request_count=sum(part.request_count for part in parts))
    cancelled = all(report.status in CANCELLING for report in entries.values())
    return ledger.restore(submission, parts, entries, answered, live=live, cancelled=cancelled)


def _is_complete(home: Home, submission: Submission, entries: Jobs, parts: Sequence[Part], has_answered: bool) -> bool:
    """Tell whether all of a submission is there, as far as known: an incomplete one must not stand for its content."""
    told = counted(report.tags for report in entries.values())
    return (
        [part.part for part in parts] == list(range(1, len(parts) + 1))
        and (has_answered or not home.found(submission.submission_id).exists())
        and len(parts) * len(submission.models) + has_answered >= told.jobs
        and rows_of(home.copies(submission.submission_id)) >= told.copies
    )


def _caught_up(context: Context, submission: Submission, entries: Jobs) -> int:
    """Take over the jobs of a submission that an older ledger still has to send; return their number."""
    jobs, ledger = 0, context.ledger
    with context.locks.trying(submission.submission_id) as held:
        for job in ledger.jobs(submission.submission_id) if held else ():
            report = entries.get((job.part, job.model))
            if report is None or ledger.job(report.job_id) is not None:
                continue
            if job.step in (Step.PLANNED, Step.HELD) and ledger.move(job, Step.SENDING):
                job = job.evolve(step=Step.SENDING)
            jobs += job.step in LOST and ledger.created(job, report)
    return jobs


def _is_better(context: Context, submission: Submission, hopeful: Collection[str]) -> bool:
    """Tell whether a submission counts more than the one that stands for its content so far.

    One that failed as a whole, its retries included, counts less; of two others, the one that was made later counts, by
    the server's clock.
    """
    known = context.ledger.live_submission(submission.identity)
    if known is None:
        return True
    jobs = [job for job in context.ledger.jobs(known.submission_id) if job.step is not Step.ANSWERED]
    retries = context.ledger.retries([known.submission_id, *(job.job_id for job in jobs if job.job_id)])
    family = [*jobs, *(job for retry in retries for job in context.ledger.jobs(retry.submission_id))]
    times = [job.report.created_at for job in jobs if job.report and job.report.created_at]
    before = known.submission_id in hopeful or may_do(family), min(times, default=known.created_at) // SECOND
    return before < (submission.submission_id in hopeful, submission.created_at // SECOND)


def _answered(found: Path) -> tuple[int, str, int] | None:
    """Return the rows that a submission found answered before, as the ledger records them; None without any."""
    try:
        return parquet.read_metadata(found).num_rows, found.name, found.stat().st_size
    except (OSError, pa.ArrowInvalid):
        return None


def _keep_results(context: Context) -> None:
    """Record the results that lie under `home` as kept: the server may no longer have them."""
    ledger = context.ledger
    for job in ledger.jobs():
        path = context.home.results_of(job)
        if job.job_id is None or not job.ended or job.results is not None:
            continue
        if context.home.store is None and not path.exists():
            continue
        # The process that is collecting them records them.
        with context.locks.trying(results_lock(job)) as held:
            if held and _are_there(context.home, path, job):
                ledger.keep_results(job, path.name, size_of(path))


def _are_there(home: Home, results: Path, job: Job) -> bool:
    """Tell whether results can be read that the ledger does not name; they are here and in the store then."""
    if home.store is None:
        return results.exists() and _is_whole(results)
    named = job.evolve(results=results.name, results_bytes=None)
    if not results.exists():
        return kept_results(home, named) is not None
    if not _is_whole(results):
        return False
    put_results(home.store, results, results, tuple(lines_of(results)))
    return True


def _is_whole(results: Path) -> bool:
    """Tell whether a file of results can be read: it got its name once it was whole, but may be damaged since."""
    try:
        columns = parquet.read_schema(results).names
    except (OSError, pa.ArrowInvalid):
        return False
    # Columns that it leaves out are in the lines beside it.
    return bool(lines_of(results)) or (LINED not in columns and COLUMNS.keys() <= set(columns))


def rows_of(copies: Path) -> int:
    """Return how many rows a Parquet file has, 0 where it is not here."""
    try:
        return int(parquet.read_metadata(copies).num_rows)
    except (OSError, pa.ArrowInvalid):
        return 0


def _parts(home: Home, submission: Submission, entries: Jobs) -> list[Part]:
    """Return the parts that the jobs stand for, and those whose requests wait here and were not sent."""
    reports = {number: report for (number, _), report in entries.items()}
    numbers = map(part_number, files_in(home.spool(submission.submission_id)))
    waiting = {number for number in numbers if number is not None}
    parts = []
    for number in sorted(reports.keys() | waiting):
        report = reports.get(number)
        path = home.part(submission.submission_id, number)
        counted = _lines(path) if number in waiting else 0
        parts.append(
            Part(
                submission_id=submission.submission_id,
                part=number,
                request_count=counted or (report.total_requests if report else 0),
                input_bytes=path.stat().st_size if number in waiting else 0,
                file_id=report.input_files[0] if report and report.input_files else None,
                upload_began=None,
            )
        )
    return parts


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))
