"""Fetching the results of ended jobs: download, verify, keep under `home`, once."""

from __future__ import annotations

import math
import shutil
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from duckdb_mistral.batches import late
from duckdb_mistral.batches.access import check_workspace
from duckdb_mistral.batches.create import spool_path
from duckdb_mistral.batches.describe import describe, not_known, not_sent
from duckdb_mistral.batches.lookup import find, reread
from duckdb_mistral.batches.reuse import keep_hashes, kept_copies, kept_hashes
from duckdb_mistral.batches.spools import leave
from duckdb_mistral.batches.track import poll, status, unsent
from duckdb_mistral.duck.engine import Engines
from duckdb_mistral.duck.jsonl import cut_to_lines
from duckdb_mistral.errors import (
    ApiError,
    ArgumentError,
    AuthenticationError,
    IncompleteResultsError,
    LedgerError,
    MistralBatchError,
    NotEndedError,
    NotFoundError,
)
from duckdb_mistral.jobs.job import Step, results_name
from duckdb_mistral.requests.spool import keys_path
from duckdb_mistral.results.convert import ResultFiles, Written, write_results
from duckdb_mistral.results.generations import left_in
from duckdb_mistral.results.provenance import said_by
from duckdb_mistral.results.responses import kept_results, line_path, lines_of, size_of
from duckdb_mistral.runtime import interrupts
from duckdb_mistral.runtime.failpoints import failpoint
from duckdb_mistral.runtime.parallel import together
from duckdb_mistral.runtime.retry_policy import is_passing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    import duckdb

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job

#: A short file is downloaded again: a clean end of a download proves nothing.
DOWNLOADS = 3
#: How directories in `home`/results are called that hold what is not kept yet: after the job's key in the ledger, or
#: after the spool of a retry.
SCRATCH = "scratch-"
RETRY_SCRATCH = f"{SCRATCH}retry-"
#: How results files begin that hold less than all results of their job.
PARTIAL = "partial-"
#: While the files of one job are converted, those of the next are downloaded; the disk holds no more of them.
FETCHES_AT_ONCE = 2


class Missing(Enum):
    """Which rows may be missing from results although the counts of their job promise them."""

    NONE = auto()
    #: Those of a file that the server no longer has.
    GONE = auto()
    #: The same, where they are about to be paid for once more.
    PAID = auto()
    ANY = auto()


@dataclass(frozen=True, kw_only=True)
class Family:
    """The kept results of the same requests on one model: each generation sends again what the one before left."""

    model: str
    generations: tuple[tuple[Path, ...], ...]
    #: What the first generation is of; None where that is another program's job.
    submission_id: str | None = None
    #: Which rows share the request of another one.
    copies: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A result file that could not be had, or not to its end, and why."""

    file_id: str
    error: MistralBatchError

    @property
    def is_gone(self) -> bool:
        """Whether the server does not have it any more: asking again is of no use."""
        return isinstance(self.error, NotFoundError)


@dataclass(frozen=True, kw_only=True)
class Collected:
    """The Parquet files that hold the results asked for, and what is needed to read them."""

    families: tuple[Family, ...]
    output: str | None = None


class Collector:
    """Keeps the results of one ledger's jobs."""

    def __init__(self, context: Context) -> None:
        """Work on the jobs of `context`; results lie in its `home`/results."""
        self._context = context
        self._directory = context.home / "results"
        #: One conversion at a time has the memory and the cores.
        self._converting = threading.Lock()
        #: Whether the server did not give a file, for a reason that passes.
        self._in_trouble = False
        self._engines = Engines()

    def collect(self, identifier: str | None, *, partial: bool = False) -> Collected:
        """Return the results of an id, or of every ended submission, fetching what is not kept yet.

        Raises NotEndedError where a job of the id has not ended, and IncompleteResultsError where the files hold
        less than the counts promise; with `partial` a retry that runs is left out, and such rows are missing.
        """
        return self._collect(
            self._ended(identifier, partial=partial),
            Missing.ANY if partial else Missing.NONE,
            all_told=identifier is not None,
        )

    def collect_to_retry(self, identifier: str) -> Collected:
        """Return the results of an id, where a row that was answered is missing only if the server lost its file.

        Files of results that are kept with rows missing are fetched again: more may be in them by now. Raises as
        `collect` does.
        """
        return self._collect(self._ended(identifier, partial=False), Missing.PAID)

    def ask_to_pay(self, jobs: Sequence[Job]) -> list[Job]:
        """Return jobs as the API has them, before what they have left is sent again; raises ApiError."""
        return late.ask_to_pay(self._context, self._engine, jobs)

    def _collect(self, groups: Sequence[Sequence[Job]], missing: Missing, *, all_told: bool = True) -> Collected:
        families: list[Family] = []
        found: list[Job] = []
        try:
            for jobs in groups:
                try:
                    families += self._families(jobs, missing)
                except NotEndedError:  # its end was taken back
                    if all_told:
                        raise
                else:
                    found += jobs
            return Collected(families=tuple(families), output=self._output(found))
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Close the engine, unless an interrupt came and a thread is still at its work with it."""
        if self._converting.acquire(blocking=False):
            try:
                self._engines.close()
            finally:
                self._converting.release()

    def _ended(self, identifier: str | None, *, partial: bool) -> list[list[Job]]:
        """Return the jobs to read, those of the same requests together, their retries after them."""
        context = self._context
        if identifier is None:
            jobs = context.ledger.jobs()
            if not all(job.ended for job in jobs):
                jobs = status(context).jobs
            jobs = late.ask_to_read(context, self._engine, jobs)
            there = self._there(jobs) if partial else set()
            groups = [_without_running(group, there) for group in self._groups(jobs)]
            return [group for group in groups if group and not any(map(self._lies_elsewhere, group))]
        jobs, gone = find(context, identifier), set()
        if not all(job.ended for job in jobs):
            polled = poll(context, identifier)
            jobs, gone = polled.jobs, {job.key for job in polled.gone}
            if gone and not partial:
                raise not_known(context, polled.gone[0])
        jobs = late.ask_to_read(context, self._engine, jobs)
        ended = _without_running(jobs, gone | self._there(jobs) if partial else gone)
        planned = [] if ended else unsent(context, jobs)
        if planned:
            raise not_sent(context, planned)
        if not ended or (len(ended) < len(jobs) and not partial):
            without = " Until then partial := true reads the results without the retry." if ended else ""
            raise NotEndedError(
                f"{describe(jobs)} There are results once that has ended: "
                f"FROM mistral_batch_wait('{identifier}') waits for it.{without}"
            )
        return [ended]

    def _there(self, jobs: Sequence[Job]) -> set[int]:
        """Return the keys of jobs that go on again, but whose results are kept: those can be read all the same."""
        return {job.key for job in jobs if not job.ended and self._kept(job) is not None}

    def _lies_elsewhere(self, job: Job) -> bool:
        """Tell whether a job's results are to be had from another server alone."""
        elsewhere = job.server_url != self._context.settings.server_url
        return elsewhere and job.job_id is not None and self._kept(job) is None

    def _groups(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """Put each submission's jobs, or a job that has none, together with those of its retries."""
        parents = {one.submission_id: one.retry_of for one in self._context.ledger.submissions()}
        homes = {job.job_id: job.submission_id or job.job_id for job in jobs}
        groups: dict[str | None, list[Job]] = {}
        for job in jobs:
            root = job.submission_id or job.job_id
            while (parent := parents.get(root or "")) is not None:
                root = homes.get(parent, parent)
            groups.setdefault(root, []).append(job)
        return list(groups.values())

    def _families(self, jobs: Sequence[Job], missing: Missing) -> Iterable[Family]:
        """Divide jobs by model, and each model's by submission, in order."""
        by_model: dict[str, dict[str | None, list[Path]]] = {}
        fetched = self._fetched(jobs, missing)
        for job in jobs:
            files = by_model.setdefault(job.model, {}).setdefault(job.submission_id, [])
            files.append(fetched.get(job.key) or self.file(job, missing))
        for model, generations in by_model.items():
            first = next(iter(generations))
            yield Family(
                model=model,
                generations=tuple(map(tuple, generations.values())),
                submission_id=first,
                copies=kept_copies(self._context.home, first or ""),
            )

    def _fetched(self, jobs: Sequence[Job], missing: Missing) -> dict[int, Path]:
        """Fetch the results of jobs that are not kept, where they are several; return their files by the jobs' keys."""
        files: dict[int, Path] = {}
        unkept = [job for job in jobs if self._kept(job) is None]
        if len(unkept) > 1:
            together(
                unkept,
                lambda job: self.file(job, missing),
                lambda job, path: files.update({job.key: path}),
                threads=FETCHES_AT_ONCE,
                daemon=False,  # Python must not end in the middle of DuckDB
            )
        return files

    @contextmanager
    def _engine(self, spill: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield an engine of our own, for one thread at a time."""
        with self._converting:
            interrupts.check()
            with self._engines.one(spill) as engine:
                yield engine

    def declared_output(self, identifier: str) -> str | None:
        """Return the declared output of an id of the ledger's; None where it has none, or is not known here."""
        ledger = self._context.ledger
        job = ledger.job(identifier)
        submission = ledger.submission(identifier if job is None else job.submission_id or identifier)
        return None if submission is None else submission.output

    def _output(self, jobs: Sequence[Job]) -> str | None:
        """Return the declared output type, where all jobs share one."""
        ids = dict.fromkeys(job.submission_id for job in jobs)
        found = [self._context.ledger.submission(submission_id) for submission_id in ids if submission_id]
        types = {submission.output for submission in found if submission is not None}
        return types.pop() if len(types) == 1 and len(found) == len(ids) else None

    def file(self, job: Job, missing: Missing) -> Path:
        """Return the Parquet file of a job's results, whole but for what may be missing."""
        kept = self._kept(job)
        if kept is not None and not self._is_outdated(job, missing):
            return kept
        if job.step is Step.ANSWERED:
            raise LedgerError(
                f"The answers that submission {job.submission_id} found again are gone from {self._directory}, or "
                "damaged. Submit the same rows with force := true: what is still kept is not sent again."
            )
        with self._context.locks.waiting(f"results-{job.key}"):
            job = self._context.ledger.jobs_by_key([job.key])[0]
            kept = self._kept(job)
            if kept is None:
                return self._fetch(job, missing)
            return self._fetch_again(job, missing, kept) if self._is_outdated(job, missing) else kept

    def _is_outdated(self, job: Job, missing: Missing) -> bool:
        """Tell whether a job may have answers by now for rows that have none in its kept results."""
        report = job.report
        if report is None or not job.ended or not self._context.ledger.writable:
            return False
        if not late.missing_in(self._context, self._engine, job):
            return False
        names_files = report.output_file is not None or report.error_file is not None
        return late.has_changed(job) or (missing is Missing.PAID and names_files)

    def _fetch_again(self, job: Job, missing: Missing, kept: Path) -> Path:
        """Fetch results once more; what is kept stays where that brings nothing better."""
        before = late.missing_in(self._context, self._engine, job)
        try:
            return self._fetch(job, missing, before=before)
        except MistralBatchError as error:
            goes_on = isinstance(error, NotEndedError)
            if missing is Missing.ANY or (missing is Missing.NONE and not goes_on and not late.owes(job, before)):
                return kept
            raise

    def _kept(self, job: Job) -> Path | None:
        return kept_results(self._context.home, job)

    def _fetch(self, job: Job, missing: Missing, before: int | None = None) -> Path:
        """Fetch the results of a job; where some are kept, with `before` rows missing, only what is no worse."""
        name = results_name(job)
        # One process at a time is here, so what lies there is what a killed one has left.
        scratch = self._directory / f"{SCRATCH}{job.key}"
        check_workspace(self._context, [job])
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            scratch.mkdir(mode=0o700)
            fetched = scratch / name
            job, written = self._download(job, scratch, fetched, missing)
            failpoint("before-keep", writes=True)
            whole = written is not None and job.ended  # what is gone from the workspace may come back
            if before is not None and (written is None or not whole or written.tally.missing > before):
                return self._directory / name
            lines = () if written is None else written.lines
            if not whole:
                name = f"{PARTIAL}{name}"
            for path in lines_of(self._directory / name):  # beside results that were damaged
                path.unlink(missing_ok=True)
            for number, path in enumerate(lines):
                path.chmod(0o600)
                path.replace(line_path(self._directory / name, number))
            fetched.replace(self._directory / name)
            failpoint("after-keep")
        except OSError as error:
            raise LedgerError(
                f"The results of job {job.job_id} could not be written to {self._directory} ({error.strerror}). "
                "Nothing is lost: free some space there and run the statement again."
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        kept = self._directory / name
        if whole and written is not None:
            self._context.ledger.keep_results(
                job, name, size_of(kept), written.tally.missing, strangers=written.strangers
            )
            (self._directory / f"{PARTIAL}{name}").unlink(missing_ok=True)
            if job.submission_id is not None and not self.requests_needed(job.submission_id, job.part):
                self.drop_requests(job)
        return kept

    def _download(self, job: Job, scratch: Path, target: Path, missing: Missing) -> tuple[Job, Written | None]:
        """Write a job's results to `target`; return the job that they are of, and what was made; None if not whole."""
        told_anew = False
        for left in range(DOWNLOADS - 1, -1, -1):
            files, lost = self._result_files(job, scratch)
            try:
                written = self._write(job, files, target)
            except IncompleteResultsError:
                if left and (not lost or missing in (Missing.GONE, Missing.PAID)) and _are_gone(lost):
                    told_anew = True
                    with suppress(ApiError):  # the next download tells
                        job = self._told_anew(job)
                    continue
                if missing is not Missing.ANY:
                    _raise_lost(job, lost, missing)
                if missing is Missing.NONE or (missing is not Missing.ANY and not lost):
                    raise
                self._write(job, files, target, partial=True)
                return job, None
            tally = written.tally
            if (tally.missing or tally.unnamed) and job.ended and not told_anew:
                # An end may be told before its counts and files are.
                told_anew, before = True, job
                try:
                    job = self._told_anew(job)
                except NotFoundError:  # nothing more will be told of it
                    pass
                except ApiError:
                    if missing is Missing.ANY:
                        return job, None
                    raise
                if job.report != before.report:
                    continue
            if lost and (tally.missing or tally.unnamed):
                if missing is not Missing.ANY:
                    _raise_lost(job, lost, missing)
                return job, None
            if not tally.unnamed:
                return job, written
            if missing is Missing.ANY:
                return job, None
            raise IncompleteResultsError(
                f"The requests of job {job.job_id} are neither here nor at the server any more, and its result files "
                f"hold {tally.held:,} of its {tally.held + tally.unnamed:,} rows: the custom_ids of the other "
                f"{tally.unnamed:,} are not known. Nothing was kept. partial := true reads what there is; the other "
                "rows have to be submitted from your own table."
            )
        return job, None

    def _write(self, job: Job, files: ResultFiles, target: Path, *, partial: bool = False) -> Written:
        with self._engine(target.parent / "spill") as engine:
            return write_results(engine, job, files, target, partial=partial)

    def _told_anew(self, job: Job) -> Job:
        """Return a job as the API has it now: its end may have been told a moment before its counts and files.

        Raises NotEndedError where it goes on after all.
        """
        context = self._context
        if job.job_id is not None:
            context.ledger.record(context.client.get(job.job_id), anew=job.ended)
        (now,) = reread(context, [job])
        if job.ended and not now.ended:
            raise NotEndedError(
                f"{describe([now])} It had been told as {job.status} before. There are results once it has ended: "
                f"FROM mistral_batch_wait('{job.job_id}') waits for it."
            )
        return now

    def _result_files(self, job: Job, scratch: Path) -> tuple[ResultFiles, list[Lost]]:
        """Download what the job names; also return what could not be had of it, after which the files come as far."""
        report = job.report
        named = [] if report is None else [report.output_file, report.error_file]
        answers: list[Path] = []
        lost: list[Lost] = []
        requests = max(job.request_count, 0 if report is None else report.total_requests) or None
        for number, file_id in enumerate(file_id for file_id in named if file_id):
            path = scratch / f"answers-{number}.jsonl"
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
        submission = self._context.ledger.submission(job.submission_id) if job.submission_id else None
        files = ResultFiles(
            answers=tuple(answers),
            submitted=self.submitted(job, scratch) or self._hashes(job),
            output=None if submission is None else submission.output,
            lost=" ".join(str(one.error) for one in lost) or None,
        )
        return files, lost

    def submitted(self, job: Job, scratch: Path) -> Path | None:
        """Return the file of a job's requests: as spooled here, else as the server has them, else None."""
        if job.submission_id is not None:
            path = spool_path(self._context.home, job.submission_id, job.part)
            with suppress(FileNotFoundError):
                if job.input_bytes in (path.stat().st_size, 0):  # 0 where the ledger was built anew; else it is damaged
                    return path
        inputs = job.report.input_files if job.report is not None else ()
        path = scratch / f"submitted-{job.key}.jsonl"
        if not inputs:
            return None
        if not path.exists():
            try:
                self._download_joined(inputs, path)
            except NotFoundError:
                return None
        return path

    def _download_joined(self, file_ids: Sequence[str], target: Path) -> None:
        """Download files of lines as one; another program's job may have several input files."""
        if len(file_ids) == 1:
            self._context.client.download(file_ids[0], target)
            return
        joined, piece = target.with_suffix(".joined"), target.with_suffix(".piece")
        with joined.open("wb") as whole:
            for file_id in file_ids:
                self._context.client.download(file_id, piece)
                with piece.open("rb") as lines:
                    shutil.copyfileobj(lines, whole)
                whole.write(b"\n")  # the last line may not end
        joined.replace(target)

    def _hashes(self, job: Job) -> Path | None:
        """Return what is kept of a job's requests once they are gone: their custom_ids and hashes."""
        if job.submission_id is None:
            return None
        path = kept_hashes(self._context.home, job)
        found = None if path is None else said_by(path)
        return path if found is not None and job.request_count in (found[1], 0) else None

    def requests_needed(self, submission_id: str, part: int) -> bool:
        """Tell whether a part's spooled requests may be read again: not once every model has answered them all."""
        jobs = self._context.ledger.jobs_of_part(submission_id, part)
        files = [self._kept(job) for job in jobs]
        if not files or any(file is None for file in files):
            return True
        with self._engine() as engine:
            return left_in(engine, [file for file in files if file is not None]) > 0

    def left(self, job: Job) -> int:
        """Return how many rows of a job, whose results were collected to retry it, are left to be sent again."""
        (job,) = self._context.ledger.jobs_by_key([job.key])
        file = self._kept(job) or self._directory / f"{PARTIAL}{results_name(job)}"
        with self._engine() as engine:
            return left_in(engine, [file])

    def drop_requests(self, job: Job) -> bool:
        """Remove the spooled requests of a job's part, with their keys, and keep their hashes.

        False where the hashes cannot be written: the requests stay instead.
        """
        home = self._context.home
        path = spool_path(home, job.submission_id or "", job.part)
        if path.exists():
            with self._engine() as engine:
                if not keep_hashes(engine, path, home, job):
                    return False
        for file in (path, keys_path(path)):  # the requests go first: the keys are of no use alone
            failpoint("before-drop")
            file.unlink(missing_ok=True)
        leave(path.parent)
        return True


def _are_gone(lost: Sequence[Lost]) -> bool:
    return all(one.is_gone for one in lost)


def _raise_lost(job: Job, lost: Sequence[Lost], missing: Missing) -> None:
    """Raise IncompleteResultsError for files that could not be had, unless they are gone and may be."""
    if not lost or (missing is not Missing.NONE and _are_gone(lost)):
        return
    first = next((one for one in lost if not one.is_gone), lost[0])
    if first.is_gone:
        raise IncompleteResultsError(
            f"The server does not have result file {first.file_id} of job {job.job_id} (any more), and its results "
            "were not read before. Nothing is submitted again by itself: partial := true reads what there is, "
            "the rest as missing, and mistral_batch_retry sends the missing ones."
        ) from None
    raise IncompleteResultsError(
        f"A result file of job {job.job_id} could not be read, and nothing was kept. {first.error} Run the statement "
        "again, or read what there is with partial := true, the rest as missing."
    ) from None


def _without_running(jobs: Sequence[Job], gone: Collection[int] = ()) -> list[Job]:
    """Return jobs and their retries without the retries that have not ended; none where the first has not.

    Of jobs that the workspace does not know any more, by their keys, nothing is waited for.
    """
    running = {job.submission_id for job in jobs if not job.ended and job.key not in gone}
    return [] if jobs[0].submission_id in running else [job for job in jobs if job.submission_id not in running]
