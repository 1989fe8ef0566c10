"""Downloading the result files of one job until they are whole, and deciding what to keep where they are not."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from duckdb_mistral.batches.again import pauses_between_looks
from duckdb_mistral.batches.describe import describe
from duckdb_mistral.batches.gone import check_files_gone
from duckdb_mistral.batches.lookup import reread
from duckdb_mistral.batches.submitted import submitted_or_custom_ids
from duckdb_mistral.duck.jsonl import cut_to_lines
from duckdb_mistral.errors import (
    ApiError,
    ArgumentError,
    AuthenticationError,
    IncompleteResultsError,
    MistralBatchError,
    NotEndedError,
    NotFoundError,
)
from duckdb_mistral.results.convert import ResultFiles, Written, write_results
from duckdb_mistral.runtime.failpoints import failpoint
from duckdb_mistral.runtime.retry_policy import is_passing
from duckdb_mistral.state.names import answers_path, scratch_spill

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.duck.engine import SharedEngine
    from duckdb_mistral.jobs.job import Job

#: A short file is downloaded again: a clean end of a download proves nothing.
DOWNLOADS = 3


class Missing(Enum):
    """Which rows may be missing from results although the counts of their job promise them."""

    NONE = auto()
    #: Those of a file that the server no longer has.
    GONE = auto()
    #: The same, where they are about to be paid for once more.
    PAID = auto()
    ANY = auto()


class Lack(Enum):
    """Why rows are not in the files of a job."""

    #: A file could not be read, or not to its end.
    UNREAD = auto()
    #: The server no longer has a file.
    GONE = auto()
    #: The files are there, and hold less than the counts promise, or rows whose custom_ids are not known.
    SHORT = auto()


#: What is kept all the same, by what may be missing; anything else is an error.
KEPT = {
    Missing.NONE: (),
    Missing.GONE: (Lack.GONE,),
    Missing.PAID: (Lack.GONE,),
    Missing.ANY: (Lack.UNREAD, Lack.GONE, Lack.SHORT),
}
#: What is downloaded again before that, once the API was asked for the job: it may name other files by now.
TRIED_AGAIN = {
    Missing.NONE: (Lack.SHORT,),
    Missing.GONE: (Lack.SHORT, Lack.GONE),
    Missing.PAID: (Lack.SHORT, Lack.GONE),
    Missing.ANY: (Lack.SHORT,),
}
#: Where what a file that is gone held is paid for again: it has to be certain that it is.
PAID_AGAIN = (Missing.GONE, Missing.PAID)


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A result file that could not be had, or not to its end, and why."""

    file_id: str
    error: MistralBatchError

    @property
    def is_gone(self) -> bool:
        """Whether the server no longer has it: asking again is of no use."""
        return isinstance(self.error, NotFoundError)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What one download of a job's files came to."""

    files: ResultFiles
    lost: tuple[Lost, ...]
    #: What was made of the files, or why they are too short for it: they hold less than the counts promise.
    made: Written | IncompleteResultsError

    @property
    def lack(self) -> Lack | None:
        """Why rows are not there; None where all are that will ever be."""
        short = isinstance(self.made, IncompleteResultsError)
        if self.lost and (short or self.has_gaps):
            return Lack.GONE if all(one.is_gone for one in self.lost) else Lack.UNREAD
        return Lack.SHORT if short or self.tally_unnamed else None

    @property
    def has_gaps(self) -> bool:
        """Whether rows have no answer in files that are long enough."""
        return isinstance(self.made, Written) and bool(self.made.tally.missing or self.made.tally.unnamed)

    @property
    def tally_unnamed(self) -> int:
        """How many rows there are of which not even the custom_id is known."""
        return self.made.tally.unnamed if isinstance(self.made, Written) else 0


class Downloader:
    """Downloads result files to where they are converted."""

    def __init__(self, context: Context, engine: SharedEngine) -> None:
        """Download from the workspace of `context`; `engine` converts."""
        self._context = context
        self._engine = engine
        #: Whether the server did not give a file, for a reason that passes.
        self._in_trouble = False
        self._outputs: dict[str, str | None] = {}

    def download(self, job: Job, scratch: Path, target: Path, missing: Missing) -> tuple[Job, Written | None]:
        """Write a job's results to `target`; return the job they belong to, and what was made; None if not whole."""
        refreshed = False
        pauses = pauses_between_looks(self._context.settings.reconcile_seconds)
        for left in range(DOWNLOADS - 1, -1, -1):
            attempt = self._attempt(job, scratch, target)
            made = attempt.made
            is_gone = attempt.lack is Lack.GONE and missing in PAID_AGAIN
            if isinstance(made, IncompleteResultsError) or is_gone:
                if left and attempt.lack in TRIED_AGAIN[missing]:
                    refreshed = True
                    if is_gone:  # it may be back in a moment
                        self._context.retry.pause(next(pauses))
                    with suppress(ApiError):  # the next download tells
                        job = self._refreshed(job)
                    continue
            elif attempt.has_gaps and job.ended and not refreshed:
                # The API may report the end before the final counts and files.
                refreshed, before = True, job.report
                try:
                    job = self._refreshed(job)
                except NotFoundError:  # nothing more will be told of it
                    pass
                except ApiError:
                    if missing is Missing.ANY:
                        return job, None
                    raise
                if job.report != before:
                    continue
            if attempt.lack is None and isinstance(made, Written):
                return job, made
            if attempt.lack not in KEPT[missing]:
                raise _incomplete(job, attempt) from None
            if is_gone:
                check_files_gone(self._context, job, [one.file_id for one in attempt.lost])
            if isinstance(made, IncompleteResultsError):
                self._write(job, attempt.files, target, partial=True)
            return job, None
        return job, None

    def _attempt(self, job: Job, scratch: Path, target: Path) -> Attempt:
        self._engine.open_ahead()
        files, lost = self._result_files(job, scratch)
        try:
            made: Written | IncompleteResultsError = self._write(job, files, target)
        except IncompleteResultsError as error:
            made = error
        return Attempt(files=files, lost=lost, made=made)

    def _write(self, job: Job, files: ResultFiles, target: Path, *, partial: bool = False) -> Written:
        with self._engine.one(scratch_spill(target.parent)) as engine:
            return write_results(engine, job, files, target, partial=partial)

    def _refreshed(self, job: Job) -> Job:
        """Return a job as the API has it now: its end may have been told a moment before its counts and files.

        Raises NotEndedError if it is still running after all.
        """
        context = self._context
        if job.job_id is not None:
            context.ledger.record(context.client.get(job.job_id), anew=job.ended)
        (now,) = reread(context, [job])
        if job.ended and not now.ended:
            raise NotEndedError(
                f"{describe([now])} The API had reported it as {job.status}. Results can be read once it has ended: "
                f"FROM mistral_batch_wait('{job.job_id}') waits for it."
            )
        return now

    def _result_files(self, job: Job, scratch: Path) -> tuple[ResultFiles, tuple[Lost, ...]]:
        """Download what the job names; also return what could not be had of it, after which the files come as far."""
        report = job.report
        named = [] if report is None else [report.output_file, report.error_file]
        answers: list[Path] = []
        lost: list[Lost] = []
        requests = max(job.request_count, 0 if report is None else report.total_requests) or None
        for number, file_id in enumerate(file_id for file_id in named if file_id):
            path = answers_path(scratch, number)
            path.unlink(missing_ok=True)
            failpoint("before-download", writes=True)
            try:
                # A server that is in trouble is waited for once, not for each file of each job.
                with self._context.retry.within(0 if self._in_trouble else math.inf):
                    self._context.client.download(file_id, path, requests)
            except AuthenticationError:
                raise
            except (ApiError, ArgumentError) as error:
                self._in_trouble |= isinstance(error, ApiError) and is_passing(error)
                lost.append(Lost(file_id=file_id, error=error))
                cut_to_lines(path)
            if path.exists():
                answers.append(path)
        files = ResultFiles(
            answers=tuple(answers),
            submitted=submitted_or_custom_ids(self._context, job, scratch),
            output=self._output(job.submission_id),
            lost=" ".join(str(one.error) for one in lost) or None,
        )
        return files, tuple(lost)

    def _output(self, submission_id: str | None) -> str | None:
        """Return the declared output of a submission, which its jobs share and which stays as it is."""
        if submission_id is None:
            return None
        if submission_id not in self._outputs:
            submission = self._context.ledger.submission(submission_id)
            self._outputs[submission_id] = None if submission is None else submission.output
        return self._outputs[submission_id]


def _incomplete(job: Job, attempt: Attempt) -> IncompleteResultsError:
    """Return the error that tells why a job's results are not whole, and what can be done."""
    if attempt.lack is Lack.GONE:
        return IncompleteResultsError(
            f"The server does not have result file {attempt.lost[0].file_id} of job {job.job_id} , or no longer has "
            "it, and its results were never read. Nothing is submitted again on its own: partial := true reads what "
            "there is, with the rest as missing, and mistral_batch_retry sends the missing rows again."
        )
    if attempt.lack is Lack.UNREAD:
        first = next(one for one in attempt.lost if not one.is_gone)
        return IncompleteResultsError(
            f"A result file of job {job.job_id} could not be read, and nothing was kept. {first.error} Run the "
            "statement again, or read what there is with partial := true, with the rest as missing."
        )
    if isinstance(attempt.made, IncompleteResultsError):
        return attempt.made
    tally = attempt.made.tally
    return IncompleteResultsError(
        f"The requests of job {job.job_id} are gone, both here and at the server, and its result files hold "
        f"{tally.held:,} of its {tally.held + tally.unnamed:,} rows: the custom_ids of the other "
        f"{tally.unnamed:,} are not known. Nothing was kept. partial := true reads what there is; submit the "
        "other rows from your own table."
    )
