"""What jobs leave without an answer, in words: how many requests, and what to do about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duckdb_mistral.jobs.job import Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from duckdb_mistral.jobs.job import Job

#: Submissions that one sentence names.
MOST_NAMED = 3


def failed(jobs: Iterable[Job]) -> int:
    """Return how many requests the API says that it has refused so far, or could not answer."""
    return sum(job.report.failed_requests for job in jobs if job.report is not None)


def unasked(jobs: Iterable[Job]) -> int:
    """Return how many requests nothing will come of, because their jobs ended before them."""
    return sum(_unasked(job) for job in jobs)


def words(refused: int, left: int) -> str:
    """Return how many requests failed, and how many have no answer for another reason; nothing where none did."""
    said = [
        *([f"{refused:,} failed"] if refused else []),
        *([f"{left:,} {'has' if left == 1 else 'have'} no answer"] if left else []),
    ]
    return " and ".join(said)


def told(jobs: Sequence[Job]) -> str:
    """Return what failed or was left, to follow what is done; nothing where nothing did."""
    said = words(failed(jobs), unasked(jobs))
    return f", and {said}" if said else ""


def what_to_do(jobs: Sequence[Job]) -> str | None:
    """Return the statements that show what ended jobs left, and send it again; None where they left nothing."""
    left = [job for job in jobs if job.ended and failed([job]) + _unasked(job)]
    if not left:
        return None
    identifiers = list(dict.fromkeys(job.submission_id or job.job_id for job in left))
    named = [
        f"FROM mistral_batch_results('{name}') WHERE outcome <> 'ok' shows which and why, and "
        f"FROM mistral_batch_retry('{name}') sends them again"
        for name in identifiers[:MOST_NAMED]
    ]
    more = len(identifiers) - len(named)
    others = f"; the same goes for {more} more" if more else ""
    total = sum(job.request_count for job in jobs)
    return f"{sentence(failed(left), unasked(left), total)} {'; '.join(named)}{others}."


def sentence(refused: int, left: int, total: int) -> str:
    """Return how many of all requests failed or were left, as a sentence."""
    return f"Of {total:,} {'request' if total == 1 else 'requests'}, {words(refused, left)}."


def _unasked(job: Job) -> int:
    if not job.ended or job.succeeded or job.step is Step.ANSWERED:
        return 0
    return max(job.request_count - (job.report.completed_requests if job.report is not None else 0), 0)
