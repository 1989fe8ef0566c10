"""Building the ledger anew from the workspace's jobs: each carries what it was submitted as in its metadata."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import parquet

from duckdb_mistral.api.listing import read
from duckdb_mistral.batches.find import CANCELLING
from duckdb_mistral.batches.spools import forgive
from duckdb_mistral.jobs.job import LOST, Part, Step, Submission
from duckdb_mistral.jobs.report import ENDED_BADLY, Status
from duckdb_mistral.jobs.tags import counted, given_metadata
from duckdb_mistral.results.convert import COLUMNS, LINED
from duckdb_mistral.results.responses import lines_of, size_of
from duckdb_mistral.runtime.failpoints import failpoint
from duckdb_mistral.state.inventory import entries as files_in
from duckdb_mistral.state.ledger import DamagedLedgerError, Ledger
from duckdb_mistral.state.names import REPAIR_LOCK, part_number, results_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from duckdb_mistral.api.listing import Listing
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job
    from duckdb_mistral.jobs.plan import Plan
    from duckdb_mistral.jobs.report import JobReport
    from duckdb_mistral.state.home import Home

#: No answers are to be hoped for from a job with one of these.
FAILING = ENDED_BADLY | {Status.CANCELLATION_REQUESTED}
#: In the ledger's microseconds.
SECOND = 1_000_000
#: The jobs of a submission, each by the part and the model that it is of.
Jobs = dict[tuple[int, str], "JobReport"]


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What a repair did."""

    #: Where the damaged ledger lies now, or None where it was sound.
    put_aside: Path | None
    restored_submissions: int
    restored_jobs: int
    #: Jobs that had not been sent, and whose requests wait here.
    unsent_jobs: int = 0


def repair(context: Context) -> Repair:
    """Put a damaged ledger aside, and restore what the workspace's jobs tell of submissions.

    What a sound ledger already knows stays as it is; a new one gets its name once it is whole. Raises an ApiError where
    the jobs cannot be listed; then nothing was changed.
    """
    home = context.home
    listed = read(context.client)
    with context.locks.waiting(REPAIR_LOCK):
        there = home.ledger
        sound = _sound(home) if there.exists() else None
        if sound is not None:
            return _repaired(context.over(sound), listed)
        damaged = there.exists()
        building = home.building
        # One process at a time is here, so what lies there is what a killed one has left.
        shutil.rmtree(building.path, ignore_errors=True)
        ledger = Ledger(building)
        done = _repaired(context.over(ledger), listed)
        ledger.settle()
        if there.exists() and not damaged:  # another process has made one meanwhile
            done, put_aside = _repaired(context.over(Ledger(home)), listed), None
        else:
            put_aside = _put_aside(home)
            failpoint("after-aside")
            ledger.path.replace(there)
        shutil.rmtree(building.path, ignore_errors=True)
        return replace(done, put_aside=put_aside)


def restore(context: Context, reports: Iterable[JobReport], plan: Plan | None = None) -> Repair:
    """Restore into the ledger what it does not know; `plan` tells what the jobs do not, of submissions like it."""
    home, ledger = context.home, context.ledger
    submissions = jobs = unsent = 0
    # Oldest first: of two submissions of the same content, the later one is the one that counts.
    for submission, entries in _in_order(list(_submissions(context, reports))):
        known = ledger.submission(submission.submission_id)
        if known is not None:
            jobs += _caught_up(context, known, entries)
        if known is None and plan is not None:
            submission = replace(submission, output=plan.output, timeout_hours=plan.timeout_hours)
        if known is None:
            parts = _parts(home, submission, entries)
            found = home.found(submission.submission_id)
            answered = _answered(found)
            # What is known to be incomplete must not stand for its content.
            whole = [part.part for part in parts] == list(range(1, len(parts) + 1))
            whole = whole and (answered is not None or not found.exists())
            told = counted(report.tags for report in entries.values())
            whole = whole and len(parts) * len(submission.models) + (answered is not None) >= told.jobs
            whole = whole and rows_of(home.copies(submission.submission_id)) >= told.copies
            live = whole and _is_later(ledger, submission, entries)
            submission = replace(submission, request_count=sum(part.request_count for part in parts))
            cancelled = all(report.status in CANCELLING for report in entries.values())
            unsent += ledger.restore(submission, parts, entries, answered, live=live, cancelled=cancelled)
            submissions += 1
            jobs += len(entries)
    _keep_results(context)
    return Repair(put_aside=None, restored_submissions=submissions, restored_jobs=jobs, unsent_jobs=unsent)


def _repaired(context: Context, listed: Listing) -> Repair:
    """Restore all that the workspace tells of; what was recorded here and never created there may be forgotten."""
    done = restore(context, listed.reports.values())
    if listed.is_whole:
        client = context.client
        forgive(context.home, context.ledger, server_url=client.server_url, account=client.account)
    return done


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


def _in_order(
    found: Sequence[tuple[Submission, Jobs]],
) -> list[tuple[Submission, Jobs]]:
    """Return submissions with their jobs by age, a retry after what it retries: the API's times are whole seconds."""
    parents = {submission.submission_id: submission.retry_of for submission, _ in found}

    def generation(submission_id: str) -> int:
        parent = parents.get(submission_id)
        return 0 if parent is None else 1 + generation(parent)

    aged = [
        (replace(submission, created_at=submission.created_at + generation(submission.submission_id)), entries)
        for submission, entries in found
    ]
    return sorted(aged, key=lambda pair: (pair[0].created_at, _may_do(pair[1].values())))


def _is_later(ledger: Ledger, submission: Submission, entries: Jobs) -> bool:
    """Tell whether a submission was made after the one that stands for its content, by the server's clock.

    It tells whole seconds: of two in the same one, the one that did not end badly counts as made after the other.
    """
    known = ledger.live_submission(submission.identity)
    if known is None:
        return True
    jobs = [job for job in ledger.jobs(known.submission_id) if job.step is not Step.ANSWERED]
    times = [job.report.created_at for job in jobs if job.report and job.report.created_at]
    before = min(times, default=known.created_at) // SECOND, _may_do(jobs)
    return before < (submission.created_at // SECOND, _may_do(entries.values()))


def _may_do(jobs: Iterable[Job | JobReport]) -> bool:
    """Tell whether any of the jobs has not ended badly, and is not about to."""
    return any(job.status not in FAILING for job in jobs)


def _answered(found: Path) -> tuple[int, str, int] | None:
    """Return the rows that a submission found answered before, as the ledger records them; None without any."""
    try:
        return parquet.read_metadata(found).num_rows, found.name, found.stat().st_size
    except (OSError, pa.ArrowInvalid):
        return None


def _keep_results(context: Context) -> None:
    """Record the results that lie under `home` as kept: the server may not have them any more."""
    ledger = context.ledger
    for job in ledger.jobs():
        path = context.home.results_of(job)
        if job.job_id is None or not job.ended or job.results is not None or not path.exists():
            continue
        # Whoever collects them now records them.
        with context.locks.trying(results_lock(job)) as held:
            if held and _is_whole(path):
                ledger.keep_results(job, path.name, size_of(path))


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


def _sound(home: Home) -> Ledger | None:
    """Return the ledger to go on with, None where it is damaged.

    One that is locked, or of a newer version, raises LedgerError.
    """
    try:
        return Ledger(home)
    except DamagedLedgerError:
        return None


def _put_aside(home: Home) -> Path | None:
    """Move what there is of a damaged ledger into a directory of its own: SQLite would take its log for a new one's."""
    directory, files = home.new_aside()
    found = [file for file in files if file.exists()]
    if not found:
        return None
    directory.mkdir(mode=0o700, exist_ok=True)
    for file in found:
        file.replace(files[file])
    return directory


def _submissions(context: Context, reports: Iterable[JobReport]) -> Iterable[tuple[Submission, Jobs]]:
    """Yield each submission that the jobs tell of, with its jobs: of two for one part and model, the better one."""
    for submission_id, group in by_submission(reports):
        entries: Jobs = {}
        for report in sorted(group, key=_worth):
            entries.setdefault(place_of(report), report)
        first = entries[min(entries)]
        yield (
            Submission(
                submission_id=submission_id,
                identity=first.tags.identity or submission_id,
                server_url=context.settings.server_url,
                account=context.client.account,
                endpoint=first.endpoint or "",
                models=tuple(dict.fromkeys((*first.tags.models, *(model for _, model in sorted(entries))))),
                timeout_hours=24,  # only matters for parts that are still to be created, and these are lost
                metadata=given_metadata(first.metadata),
                request_count=0,  # counted by the parts
                input_bytes=0,
                created_at=min(report.created_at or 0 for report in entries.values()),
                retry_of=first.tags.retry_of,
            ),
            entries,
        )


def by_submission(reports: Iterable[JobReport]) -> Iterator[tuple[str, list[JobReport]]]:
    """Yield the submissions that jobs tell of, each with its jobs."""
    told = [(report.tags.submission_id, report) for report in reports]
    known = sorted(((one, report) for one, report in told if one is not None), key=itemgetter(0))
    for submission_id, group in groupby(known, key=itemgetter(0)):
        yield submission_id, [report for _, report in group]


def place_of(report: JobReport) -> tuple[int, str]:
    """Return the part and the model that a job was created for; the API may call the model otherwise."""
    model = report.tags.model
    if report.model is not None and report.model.casefold() == model.casefold():
        model = report.model
    return report.tags.part, model or report.model or ""


def _worth(report: JobReport) -> tuple[int, int, int, str]:
    """Return what sorts jobs of the same requests, the one first that stands for them."""
    ends_well = report.word == Status.SUCCESS
    may_end_well = not report.ended and report.word not in CANCELLING
    order = 0 if ends_well else 1 if may_end_well else 2
    return order, -report.succeeded_requests, report.created_at or 0, report.job_id


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
