"""Submissions as the workspace's jobs tell of them: each job carries what it was submitted as in its metadata."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from duckdb_mistral.batches.find import CANCELLING
from duckdb_mistral.jobs.job import Submission
from duckdb_mistral.jobs.report import ENDED_BADLY, Status
from duckdb_mistral.jobs.tags import given_metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job
    from duckdb_mistral.jobs.report import JobReport

#: Statuses after which no answers will come.
FAILING = ENDED_BADLY | {Status.CANCELLATION_REQUESTED}
#: The jobs of a submission, each by the part and the model that it is of.
Jobs = dict[tuple[int, str], "JobReport"]


def listed_submissions(context: Context, reports: Iterable[JobReport]) -> list[tuple[Submission, Jobs]]:
    """Return the submissions that the jobs tell of by age, a retry after what it retries.

    The API's times are whole seconds. Of two jobs for one part and model, the better one counts.
    """
    found = list(_submissions(context, reports))
    parents = {submission.submission_id: submission.retry_of for submission, _ in found}

    def generation(submission_id: str) -> int:
        parent = parents.get(submission_id)
        return 0 if parent is None else 1 + generation(parent)

    aged = [
        (replace(submission, created_at=submission.created_at + generation(submission.submission_id)), entries)
        for submission, entries in found
    ]
    return sorted(aged, key=lambda pair: (pair[0].created_at, may_do(pair[1].values())))


def may_do(jobs: Iterable[Job | JobReport]) -> bool:
    """Tell whether any of the jobs has not ended badly, and is not about to."""
    return any(job.status not in FAILING for job in jobs)


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


def _submissions(context: Context, reports: Iterable[JobReport]) -> Iterable[tuple[Submission, Jobs]]:
    """Yield each submission with its jobs."""
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


def _worth(report: JobReport) -> tuple[int, int, int, str]:
    """Return what sorts jobs of the same requests, the one first that stands for them."""
    ends_well = report.word == Status.SUCCESS
    may_end_well = not report.ended and report.word not in CANCELLING
    order = 0 if ends_well else 1 if may_end_well else 2
    return order, -report.succeeded_requests, report.created_at or 0, report.job_id
