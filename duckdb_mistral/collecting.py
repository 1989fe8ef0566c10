"""Fetching the results of ended jobs: download, verify, keep under `home`, once."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from duckdb_mistral.batches import Batches, describe
from duckdb_mistral.errors import IncompleteResultsError, LedgerError, NotEndedError, NotFoundError
from duckdb_mistral.failpoints import failpoint
from duckdb_mistral.results import ResultFiles, write_results
from duckdb_mistral.sending import spool_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from duckdb_mistral.jobs import Job, Submission

#: A short file is downloaded again: a clean end of a download proves nothing.
DOWNLOADS = 3


@dataclass(frozen=True, kw_only=True)
class Collected:
    """The Parquet files that hold the results asked for, and what is needed to read them."""

    files: tuple[Path, ...]
    output: str | None = None


class Collector:
    """Keeps the results of one ledger's jobs."""

    def __init__(self, batches: Batches) -> None:
        """Work on the jobs of `batches`; results lie in its `home`/results."""
        self._batches = batches
        self._directory = batches.settings.home / "results"

    def collect(self, identifier: str | None, *, partial: bool = False) -> Collected:
        """Return the results of an id, or of every ended submission, fetching what is not kept yet.

        Raises NotEndedError where a job of the id has not ended, and IncompleteResultsError where the files hold
        less than the counts promise, unless `partial`.
        """
        jobs = self._ended_jobs(identifier)
        return Collected(files=tuple(self._file(job, partial=partial) for job in jobs), output=self._output(jobs))

    def _ended_jobs(self, identifier: str | None) -> list[Job]:
        batches = self._batches
        if identifier is None:
            jobs = batches.ledger.jobs()
            if not all(job.ended for job in jobs):
                jobs = batches.status()
            open_ids = {job.submission_id for job in jobs if not job.ended}
            return [job for job in jobs if job.submission_id not in open_ids]
        jobs = batches.find(identifier)
        if not all(job.ended for job in jobs):
            jobs = batches.status(identifier)
        if not all(job.ended for job in jobs):
            raise NotEndedError(
                f"{describe(jobs)} There are results once that has ended: "
                f"FROM mistral_batch_wait('{identifier}') waits for it."
            )
        return jobs

    def _output(self, jobs: Sequence[Job]) -> str | None:
        """Return the declared output type, where all jobs share one."""
        ids = dict.fromkeys(job.submission_id for job in jobs)
        found = [self._batches.ledger.submission(submission_id) for submission_id in ids if submission_id]
        types = {submission.output for submission in found if submission is not None}
        return types.pop() if len(types) == 1 and len(found) == len(ids) else None

    def _file(self, job: Job, *, partial: bool) -> Path:
        """Return the Parquet file of a job's results, whole; or with `partial`, of what there is."""
        kept = self._kept(job)
        if kept is not None:
            return kept
        with self._batches.lock(f"results-{job.key}"):
            job = self._batches.ledger.jobs_by_key([job.key])[0]
            kept = self._kept(job)
            if kept is not None:
                return kept
            return self._fetch(job, partial=partial)

    def _kept(self, job: Job) -> Path | None:
        path = self._directory / job.results if job.results is not None else None
        return path if path is not None and path.exists() else None

    def _fetch(self, job: Job, *, partial: bool) -> Path:
        name = f"{job.job_id or f'{job.submission_id}-{job.part}-{job.key}'}.parquet"
        scratch = self._directory / f"scratch-{uuid4()}"
        try:
            scratch.mkdir(mode=0o700, parents=True)
            fetched = scratch / name
            whole = self._download(job, scratch, fetched, partial=partial)
            failpoint("before-keep")
            if not whole:
                name = f"partial-{name}"
            fetched.replace(self._directory / name)
            failpoint("after-keep")
        except OSError as error:
            raise LedgerError(
                f"The results of job {job.job_id} could not be written to {self._directory} ({error.strerror}). "
                "Nothing is lost: free some space there and run the statement again."
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if whole:
            self._batches.ledger.keep_results(job, name)
        return self._directory / name

    def _download(self, job: Job, scratch: Path, target: Path, *, partial: bool) -> bool:
        """Write a job's results to `target`; return whether they are whole."""
        for left in range(DOWNLOADS - 1, -1, -1):
            files = self._result_files(job, scratch)
            try:
                write_results(job, files, target, partial=False)
            except IncompleteResultsError:
                if left:
                    continue
                if not partial:
                    raise
                write_results(job, files, target, partial=True)
                return False
            return True
        return False

    def _result_files(self, job: Job, scratch: Path) -> ResultFiles:
        """Download what the job names; where it was never created there is nothing."""
        report = job.report
        named = [] if report is None else [report.output_file, report.error_file]
        answers = []
        for number, file_id in enumerate(file_id for file_id in named if file_id):
            path = scratch / f"answers-{number}.jsonl"
            self._get(job, file_id, path)
            answers.append(path)
        submission = self._submission(job)
        return ResultFiles(
            answers=tuple(answers),
            submitted=self._submitted(job, scratch),
            output=None if submission is None else submission.output,
        )

    def _get(self, job: Job, file_id: str, path: Path) -> None:
        failpoint("before-download")
        try:
            self._batches.client.download(file_id, path)
        except NotFoundError:
            raise IncompleteResultsError(
                f"The server no longer has result file {file_id} of job {job.job_id}, and its results were not read "
                "before. Nothing is submitted again by itself: mistral_batch_retry sends what is left."
            ) from None

    def _submitted(self, job: Job, scratch: Path) -> Path | None:
        """Return the job's requests: as spooled here, else as the server has them, else None."""
        submission = self._submission(job)
        if submission is not None:
            path = spool_path(self._batches.settings.home, submission.submission_id, job.part)
            if path.exists():
                return path
        inputs = job.report.input_files if job.report is not None else ()
        path = scratch / "submitted.jsonl"
        if len(inputs) != 1:
            return None
        if not path.exists():
            try:
                self._batches.client.download(inputs[0], path)
            except NotFoundError:
                return None
        return path

    def _submission(self, job: Job) -> Submission | None:
        return self._batches.ledger.submission(job.submission_id) if job.submission_id else None
