"""Building the ledger anew from the workspace's jobs: each carries what it was submitted as in its metadata."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from duckdb_mistral.errors import LedgerError
from duckdb_mistral.jobs import (
    IDENTITY_KEY,
    OWN_KEYS,
    PART_KEY,
    SUBMISSION_KEY,
    Part,
    Submission,
)
from duckdb_mistral.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from duckdb_mistral.client import BatchClient
    from duckdb_mistral.jobs import JobReport

LEDGER_FILES = ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm")
#: How the directories begin that damaged ledgers are put into.
ASIDE = "damaged-"


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What a repair did."""

    #: Where the damaged ledger lies now, or None where it was sound.
    put_aside: Path | None
    restored_submissions: int
    restored_jobs: int


def repair(home: Path, client: BatchClient) -> Repair:
    """Put a damaged ledger of `home` aside, and restore what the workspace's jobs tell of submissions.

    What a sound ledger already knows stays as it is. Raises an ApiError where the jobs cannot be listed; then nothing
    was changed.
    """
    reports = [report for report in client.jobs() if SUBMISSION_KEY in dict(report.metadata)]
    put_aside = _put_aside(home)
    ledger = Ledger(home)
    submissions = jobs = 0
    # Oldest first: of two submissions of the same content, the later one is the one that counts.
    for submission, entries in sorted(_submissions(reports, client), key=lambda pair: pair[0].created_at):
        if ledger.submission(submission.submission_id) is None:
            ledger.restore(submission, _parts(submission, entries), entries)
            submissions += 1
            jobs += len(entries)
    return Repair(put_aside=put_aside, restored_submissions=submissions, restored_jobs=jobs)


def _put_aside(home: Path) -> Path | None:
    try:
        Ledger(home)
    except LedgerError:
        target = home / f"{ASIDE}{time.strftime('%Y%m%d-%H%M%S')}"
        target.mkdir(mode=0o700)
        for name in LEDGER_FILES:
            if (home / name).exists():
                (home / name).replace(target / name)
        return target
    return None


def _submissions(
    reports: Iterable[JobReport], client: BatchClient
) -> Iterable[tuple[Submission, list[tuple[int, JobReport]]]]:
    """Yield each submission that the jobs tell of, with its jobs and the parts that they stand for."""
    by_submission = sorted(reports, key=lambda report: dict(report.metadata)[SUBMISSION_KEY])
    for submission_id, group in groupby(by_submission, key=lambda report: dict(report.metadata)[SUBMISSION_KEY]):
        entries = sorted(((_part_number(report), report) for report in group), key=lambda entry: entry[0])
        first = entries[0][1]
        files = dict(entries)
        yield (
            Submission(
                submission_id=submission_id,
                identity=dict(first.metadata).get(IDENTITY_KEY, submission_id),
                server_url=client.server_url,
                account=client.account,
                endpoint=first.endpoint or "",
                models=tuple(dict.fromkeys(report.model or "" for _, report in entries)),
                timeout_hours=24,  # only matters for parts that are still to be created, and these are lost
                metadata=tuple(pair for pair in first.metadata if pair[0] not in OWN_KEYS),
                request_count=sum(report.total_requests for report in files.values()),
                input_bytes=0,
                created_at=min(report.created_at or 0 for _, report in entries),
            ),
            entries,
        )


def _part_number(report: JobReport) -> int:
    number = dict(report.metadata).get(PART_KEY, "1").split(" ")[0]
    return int(number) if number.isdecimal() else 1


def _parts(submission: Submission, entries: Sequence[tuple[int, JobReport]]) -> list[Part]:
    files = dict(entries)
    return [
        Part(
            submission_id=submission.submission_id,
            part=number,
            request_count=report.total_requests,
            input_bytes=0,
            file_id=report.input_files[0] if report.input_files else None,
        )
        for number, report in files.items()
    ]
