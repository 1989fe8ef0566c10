"""Making sure that the workspace no longer has a file, before requests are paid for again.

A 404 may come from something in between, and what was written a moment ago may not be found yet. So a file is looked
for several times, by itself and in the list, and what is young does not count as gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from duckdb_mistral.errors import ApiError, AuthenticationError, IncompleteResultsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job

SECOND = 1_000_000


def check_files_gone(context: Context, job: Job, file_ids: Sequence[str]) -> None:
    """Raise IncompleteResultsError unless the workspace certainly has no longer any of these files of a job.

    The caller has tried to download them several times. A file counts as there for reconcile_seconds from its job's
    end, or from its beginning if that is not known.
    """
    for file_id in file_ids:
        try:
            is_there = context.client.has_file(file_id)
        except AuthenticationError:
            raise
        except ApiError as error:
            raise IncompleteResultsError(_unsure(job, file_id, f"could not be looked for. {error}")) from None
        if is_there:
            raise IncompleteResultsError(_unsure(job, file_id, "is there, but was not delivered (HTTP 404)."))
    report = job.report
    if report is not None and is_recent(context, report.completed_at or report.created_at):
        why = "is not there, but the job is so young that the file may still come."
        raise IncompleteResultsError(_unsure(job, file_ids[0], why))


def is_recent(context: Context, moment: int | None) -> bool:
    """Tell whether a time of the API's, in µs, is less than reconcile_seconds ago by the API's own clock."""
    if moment is None:
        return False
    clock = context.client.server_time or context.ledger.now()
    return abs(clock - moment) < context.settings.reconcile_seconds * SECOND


def _unsure(job: Job, file_id: str, why: str) -> str:
    return (
        f"File {file_id} of job {job.job_id} {why} Whether the workspace has lost it is not known yet: run the "
        "statement again a little later."
    )
