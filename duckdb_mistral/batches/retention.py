"""What may go once results are kept: spooled requests that every model has answered, whose hashes stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duckdb_mistral.batches.hashes import keep_hashes
from duckdb_mistral.batches.spools import leave
from duckdb_mistral.errors import StoreError
from duckdb_mistral.results.generations import left_in
from duckdb_mistral.results.responses import kept_results
from duckdb_mistral.runtime.failpoints import failpoint
from duckdb_mistral.state.names import keys_path

if TYPE_CHECKING:
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.duck.engine import SharedEngine
    from duckdb_mistral.jobs.job import Job


def requests_needed(context: Context, engine: SharedEngine, submission_id: str, part: int) -> bool:
    """Tell whether a part's spooled requests may be read again: not once every model has answered them all."""
    files = [kept_results(context.home, job) for job in context.ledger.jobs_of_part(submission_id, part)]
    if not files or any(file is None for file in files):
        return True
    with engine.one() as opened:
        return left_in(opened, [file for file in files if file is not None]) > 0


def drop_requests(context: Context, engine: SharedEngine, job: Job) -> bool:
    """Remove the spooled requests of a job's part, with their keys, and keep their hashes.

    False if the hashes cannot be written, here or in the store: the requests stay instead. The caller holds the lock
    of the results.
    """
    path = context.home.part(job.submission_id or "", job.part)
    if path.exists():
        with engine.one() as opened:
            try:
                if not keep_hashes(opened, path, context.home, job):
                    return False
            except StoreError:
                return False
    for file in (path, keys_path(path)):  # the requests go first: the keys are of no use alone
        failpoint("before-drop")
        file.unlink(missing_ok=True)
    leave(path.parent)
    return True
