"""Keeping the results of ended jobs: each is downloaded once, and again where more may have come.

They are kept under `home`. Where there is a store, they are put there first, and recorded after that.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from duckdb_mistral.batches import late
from duckdb_mistral.batches.access import check_workspace
from duckdb_mistral.batches.download import Downloader, Missing
from duckdb_mistral.batches.hashes import keep_hashes, kept_hashes
from duckdb_mistral.batches.lookup import reread
from duckdb_mistral.batches.retention import drop_requests, requests_needed
from duckdb_mistral.errors import (
    ArgumentError,
    IncompleteResultsError,
    LedgerError,
    MistralBatchError,
    NotEndedError,
    NotFoundError,
    StoreError,
)
from duckdb_mistral.jobs.job import Step
from duckdb_mistral.results.bring import put_results
from duckdb_mistral.results.generations import count_rows, left_in
from duckdb_mistral.results.responses import kept_results, lines_of, size_of
from duckdb_mistral.runtime.failpoints import failpoint
from duckdb_mistral.state.names import fetched_path, line_path, results_lock, submitted_path

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job
    from duckdb_mistral.results.compare import Tally
    from duckdb_mistral.state.home import Home


#: An engine that has written more than this, in bytes of Parquet, is not kept for the next call.
SMALL_BYTES = 8 << 20


class Fetcher:
    """Fetches results with one engine, which several threads take in turn; `close` lets go of it."""

    def __init__(self, context: Context) -> None:
        """Keep results under the `home` of `context`."""
        self.engine = context.engines.take()
        self._context = context
        self._bytes = 0
        self._home = context.home
        self._downloader = Downloader(context, self.engine)
        #: Submissions whose workspace this connection sees.
        self._seen: set[str | None] = set()

    def close(self) -> None:
        """Give the engine back, unless a thread is still working with it."""
        self._context.engines.give_back(self.engine, keep=self._bytes <= SMALL_BYTES)

    def file(self, job: Job, missing: Missing) -> Path:
        """Return the Parquet file of a job's results, whole but for what may be missing."""
        kept = kept_results(self._home, job)
        if kept is not None and not self._is_outdated(job, missing):
            return kept
        if job.step is Step.ANSWERED:
            raise LedgerError(
                f"The answers that submission {job.submission_id} reused are gone from {self._places()}, or "
                "damaged. Submit the same rows with force := true: what is still kept is not sent again."
            )
        with self._context.locks.waiting(results_lock(job)):
            (job,) = reread(self._context, [job])
            kept = kept_results(self._home, job)
            if kept is None:
                return self._fetch_lost(job, missing) if were_stored(self._home, job) else self._fetch(job, missing)
            return self._fetch_again(job, missing, kept) if self._is_outdated(job, missing) else kept

    def left(self, job: Job) -> int:
        """Return how many rows of a job, whose results were fetched to retry it, are left to be sent again."""
        (job,) = reread(self._context, [job])
        file = kept_results(self._home, job) or self._home.partial(job)
        with self.engine.one() as engine:
            return left_in(engine, [file])

    def _check_workspace(self, job: Job) -> None:
        """Make sure that this connection sees a job; those of one submission are in one workspace."""
        if job.submission_id is None or job.submission_id not in self._seen:
            check_workspace(self._context, [job])
            self._seen.add(job.submission_id)

    def _is_outdated(self, job: Job, missing: Missing) -> bool:
        """Tell whether a job may have answers by now for rows that have none in its kept results."""
        report = job.report
        if report is None or not job.ended or not self._context.ledger.writable:
            return False
        if not late.missing_in(self._context, self.engine, job):
            return False
        names_files = report.output_file is not None or report.error_file is not None
        return late.has_changed(job) or (missing is Missing.PAID and names_files)

    def _fetch_again(self, job: Job, missing: Missing, kept: Path) -> Path:
        """Fetch results once more; what is kept stays where that brings nothing better."""
        before = late.missing_in(self._context, self.engine, job)
        try:
            return self._fetch(job, missing, before=before)
        except MistralBatchError as error:
            goes_on = isinstance(error, NotEndedError)
            if missing is Missing.ANY or (missing is Missing.NONE and not goes_on and not late.owes(job, before)):
                return kept
            raise

    def _fetch_lost(self, job: Job, missing: Missing) -> Path:
        """Fetch results once more that the ledger names, and that neither `home` nor the store has.

        Rows that were answered must not come out of this as missing, unless somebody asks to read what there is.
        """
        found = self._found_otherwise(job)
        if found is not None:
            return found
        if missing is Missing.ANY:
            return self._fetch(job, missing)
        reason = "What the server has of them now is less than what was kept."
        try:
            path = self._fetch(job, Missing.NONE, before=job.results_missing or 0)
            if kept_results(self._home, *reread(self._context, [job])) is not None:
                return path
        except (IncompleteResultsError, NotFoundError, ArgumentError) as error:
            reason = str(error)
        raise StoreError(
            f"The results of job {job.job_id} were kept as {job.results}, and are gone from {self._places()}. "
            f"{reason} Put the file back, or correct the setting store; nothing is paid again until then. To pay for "
            "its rows again, submit them with force := true."
        )

    def _found_otherwise(self, job: Job) -> Path | None:
        """Return results of this very job that are of another size than the ledger names, and no worse; record them.

        A process was killed between putting and recording them, or another ledger uses the same store.
        """
        path = kept_results(self._home, job.evolve(results_bytes=None))
        if path is None:
            return None
        with self.engine.one() as engine:
            missing = count_rows(engine, [path], "outcome = 'missing'")
        if missing > (job.results_missing or 0):
            return None
        self._context.ledger.keep_results(job, path.name, size_of(path), missing, strangers=job.message)
        return path

    def _places(self) -> str:
        store = self._home.store
        return f"{self._home.results}" + ("" if store is None else f" and from the store {store}")

    def _fetch(self, job: Job, missing: Missing, before: int | None = None) -> Path:
        """Fetch the results of a job; where some are kept, with `before` rows missing, only what is no worse."""
        final = self._home.results_of(job)
        # One process at a time is here, so what lies there is what a killed one has left.
        scratch = self._home.scratch(job)
        self._check_workspace(job)
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            self._home.results.mkdir(mode=0o700, exist_ok=True)
            scratch.mkdir(mode=0o700)
            fetched = fetched_path(scratch, job)
            job, written = self._downloader.download(job, scratch, fetched, missing)
            failpoint("before-keep", writes=True)
            whole = written is not None and job.ended  # what is gone from the workspace may come back
            if before is not None and (written is None or not whole or written.tally.missing > before):
                return final
            kept = final if whole else self._home.partial(job)
            if whole and written is not None:
                self._keep_hashes(job, submitted_path(scratch, job), written.tally)
            if self._home.store is not None and whole and written is not None:
                put_results(self._home.store, kept, fetched, written.lines)
                failpoint("after-put")
            _put(fetched, () if written is None else written.lines, kept)
            self._bytes += size_of(kept)
            failpoint("after-keep")
        except OSError as error:
            raise LedgerError(
                f"The results of job {job.job_id} could not be written to {self._home.results} ({error.strerror}). "
                "Nothing is lost: free some space there and run the statement again."
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if whole and written is not None:
            self._context.ledger.keep_results(
                job, kept.name, size_of(kept), written.tally.missing, strangers=written.strangers
            )
            self._home.partial(job).unlink(missing_ok=True)
            self._drop_answered(job)
        return kept

    def _keep_hashes(self, job: Job, requests: Path, tally: Tally) -> None:
        """Keep the hashes of requests that had to be downloaded, as those of a job that was found in the workspace.

        By these, reuse := 'requests' knows what the results answer. Where they cannot be written here, the results are
        read all the same; raises StoreError if they cannot be put into the store.
        """
        is_whole = job.request_count in (tally.held + tally.missing, 0)
        if job.submission_id is None or not is_whole or not requests.exists():
            return
        if not self._home.hashes(job).exists() and kept_hashes(self._home, job) is None:
            with self.engine.one() as engine:
                keep_hashes(engine, requests, self._home, job)

    def _drop_answered(self, job: Job) -> None:
        """Remove the requests of a job whose results were kept, unless a retry may send some again."""
        if job.submission_id is None:
            return
        with suppress(StoreError):  # the results of another model cannot be brought: they stay for now
            if not requests_needed(self._context, self.engine, job.submission_id, job.part):
                drop_requests(self._context, self.engine, job)


def were_stored(home: Home, job: Job) -> bool:
    """Tell whether the ledger names results of a job that a store has, or has lost."""
    return home.store is not None and job.results is not None


def _put(fetched: Path, lines: Iterable[Path], kept: Path) -> None:
    """Give results their name, once the lines that they need lie beside it."""
    for path in lines_of(kept):  # beside results that were damaged
        path.unlink(missing_ok=True)
    for number, path in enumerate(lines):
        path.chmod(0o600)
        path.replace(line_path(kept, number))
    fetched.replace(kept)
