"""The limit of requests that a workspace may have pending, whoever made them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duckdb_mistral.errors import ArgumentError
from duckdb_mistral.jobs.report import PENDING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job
    from duckdb_mistral.jobs.report import JobReport


class PendingLimit:
    """The setting `max_pending_requests`, counted over one workspace."""

    def __init__(self, context: Context) -> None:
        """Count in the workspace of `context`; raises MissingKeyError where there is no key."""
        self._most = context.settings.max_pending_requests
        self._ledger = context.ledger
        self._client = context.client

    def room(self) -> int:
        """Return how many more requests the workspace may have pending."""
        return self.room_beside(self._client.jobs(statuses=PENDING))

    def room_beside(self, reports: Iterable[JobReport]) -> int:
        """Return how many more requests may be pending beside these jobs; all of them count, whoever made them."""
        told = {report.job_id: report.total_requests for report in reports if report.status in PENDING}
        known = self._ledger.request_counts(list(told))
        pending = sum(max(count, known.get(job_id, 0)) for job_id, count in told.items())
        return self._most - pending

    def check(self, waiting: Iterable[Job]) -> None:
        """Raise ArgumentError for a job that no limit would ever let through."""
        for job in waiting:
            if job.request_count > self._most:
                raise ArgumentError(
                    f"Part {job.part} of submission {job.submission_id} has {job.request_count:,} requests, more than "
                    f"max_pending_requests allows at all ({self._most:,}), so it would wait forever. Raise that "
                    f"setting, or give the part up with mistral_batch_cancel('{job.submission_id}')."
                )
