"""Fetching the results of ended jobs: download, verify, keep under `home`, once."""

from __future__ import annotations

import shutil
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from duckdb_mistral import interrupts
from duckdb_mistral.batches import Batches, describe
from duckdb_mistral.engines import Engines
from duckdb_mistral.errors import (
    ApiError,
    ArgumentError,
    IncompleteResultsError,
    LedgerError,
    NotEndedError,
    NotFoundError,
)
from duckdb_mistral.failpoints import failpoint
from duckdb_mistral.jobs import Step, results_name
from duckdb_mistral.leftovers import left_in
from duckdb_mistral.responses import kept_results, line_path, lines_of, size_of
from duckdb_mistral.results import ResultFiles, write_results
from duckdb_mistral.reusing import copies_path, hashes_path, keep_hashes
from duckdb_mistral.sending import spool_path
from duckdb_mistral.spool import keys_path
from duckdb_mistral.together import together

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    import duckdb

    from duckdb_mistral.jobs import Job

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
class Collected:
    """The Parquet files that hold the results asked for, and what is needed to read them."""

    families: tuple[Family, ...]
    output: str | None = None


class Collector:
    """Keeps the results of one ledger's jobs."""

    def __init__(self, batches: Batches) -> None:
        """Work on the jobs of `batches`; results lie in its `home`/results."""
        self._batches = batches
        self._directory = batches.settings.home / "results"
        #: One conversion at a time has the memory and the cores.
        self._converting = threading.Lock()
        self._engines = Engines()

    def collect(self, identifier: str | None, *, partial: bool = False) -> Collected:
        """Return the results of an id, or of every ended submission, fetching what is not kept yet.

        Raises NotEndedError where a job of the id has not ended, and IncompleteResultsError where the files hold
        less than the counts promise; with `partial` a retry that runs is left out, and such rows are missing.
        """
        return self._collect(self._ended(identifier, partial=partial), Missing.ANY if partial else Missing.NONE)

    def collect_to_retry(self, identifier: str) -> Collected:
        """Return the results of an id, where a row that was answered is missing only if the server lost its file.

        Raises as `collect` does.
        """
        return self._collect(self._ended(identifier, partial=False), Missing.GONE)

    def _collect(self, groups: Sequence[Sequence[Job]], missing: Missing) -> Collected:
        try:
            return Collected(
                families=tuple(family for jobs in groups for family in self._families(jobs, missing)),
                output=self._output([job for jobs in groups for job in jobs]),
            )
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
        batches = self._batches
        if identifier is None:
            jobs = batches.ledger.jobs()
            if not all(job.ended for job in jobs):
                jobs = batches.status()
            groups = [_without_running(group) for group in self._groups(jobs)]
            return [group for group in groups if group and not any(map(self._lies_elsewhere, group))]
        jobs, gone = batches.find(identifier), set()
        if not all(job.ended for job in jobs):
            jobs, unknown = batches.poll(identifier)
            gone = {job.key for job in unknown}
            if gone and not partial:
                raise batches.not_known(unknown[0])
        ended = _without_running(jobs, gone)
        unsent = [] if ended else batches.unsent(jobs)
        if unsent:
            raise batches.not_sent(unsent)
        if not ended or (len(ended) < len(jobs) and not partial):
            without = " Until then partial := true reads the results without the retry." if ended else ""
            raise NotEndedError(
                f"{describe(jobs)} There are results once that has ended: "
                f"FROM mistral_batch_wait('{identifier}') waits for it.{without}"
            )
        return [ended]

    def _lies_elsewhere(self, job: Job) -> bool:
        """Tell whether a job's results are to be had from another server alone."""
        elsewhere = job.server_url != self._batches.settings.server_url
        return elsewhere and job.job_id is not None and self._kept(job) is None

    def check_workspace(self, jobs: Sequence[Job]) -> None:
        """Make sure that this connection sees the jobs: what another server or key does not know counts as gone.

        Raises ArgumentError.
        """
        batches = self._batches
        created = [job for job in jobs if job.job_id is not None]
        batches.check_server(created)
        for submission_id in dict.fromkeys(job.submission_id for job in created):
            submission = batches.ledger.submission(submission_id) if submission_id else None
            try:
                if submission is not None:
                    batches.check_account(submission)
            except ArgumentError:
                raise ArgumentError(
                    f"Submission {submission_id} was made with another API key, whose jobs this key (account "
                    f"{batches.client.account}) cannot see. Nothing was read or sent. Use the key that it was made "
                    "with, or another one of that workspace."
                ) from None

    def _groups(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """Put each submission's jobs, or a job that has none, together with those of its retries."""
        parents = {one.submission_id: one.retry_of for one in self._batches.ledger.submissions()}
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
            copies = copies_path(self._batches.settings.home, first or "")
            yield Family(
                model=model,
                generations=tuple(map(tuple, generations.values())),
                submission_id=first,
                copies=copies if copies.exists() else None,
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

    def _output(self, jobs: Sequence[Job]) -> str | None:
        """Return the declared output type, where all jobs share one."""
        ids = dict.fromkeys(job.submission_id for job in jobs)
        found = [self._batches.ledger.submission(submission_id) for submission_id in ids if submission_id]
        types = {submission.output for submission in found if submission is not None}
        return types.pop() if len(types) == 1 and len(found) == len(ids) else None

    def file(self, job: Job, missing: Missing) -> Path:
        """Return the Parquet file of a job's results, whole but for what may be missing."""
        kept = self._kept(job)
        if kept is not None:
            return kept
        if job.step is Step.ANSWERED:
            raise LedgerError(
                f"The answers that submission {job.submission_id} found again are gone from {self._directory}, or "
                "damaged. Submit the same rows with force := true: what is still kept is not sent again."
            )
        with self._batches.lock(f"results-{job.key}"):
            job = self._batches.ledger.jobs_by_key([job.key])[0]
            kept = self._kept(job)
            if kept is not None:
                return kept
            return self._fetch(job, missing)

    def _kept(self, job: Job) -> Path | None:
        return kept_results(self._batches.settings.home, job)

    def _fetch(self, job: Job, missing: Missing) -> Path:
        name = results_name(job)
        # One process at a time is here, so what lies there is what a killed one has left.
        scratch = self._directory / f"{SCRATCH}{job.key}"
        self.check_workspace([job])
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            scratch.mkdir(mode=0o700)
            fetched = scratch / name
            lines = self._download(job, scratch, fetched, missing)
            failpoint("before-keep", writes=True)
            whole = lines is not None and job.ended  # what is gone from the workspace may come back
            if not whole:
                name = f"{PARTIAL}{name}"
            for path in lines_of(self._directory / name):  # beside results that were damaged
                path.unlink(missing_ok=True)
            for number, path in enumerate(lines or ()):
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
        if whole:
            self._batches.ledger.keep_results(job, name, size_of(kept))
            (self._directory / f"{PARTIAL}{name}").unlink(missing_ok=True)
            if job.submission_id is not None and not self.requests_needed(job.submission_id, job.part):
                self.drop_requests(job)
        return kept

    def _download(self, job: Job, scratch: Path, target: Path, missing: Missing) -> tuple[Path, ...] | None:
        """Write a job's results to `target`; return the files that have to stay beside it, None if it is not whole."""
        told_anew = False
        for left in range(DOWNLOADS - 1, -1, -1):
            files, gone = self._result_files(job, scratch)
            if gone and missing is Missing.NONE:
                raise IncompleteResultsError(
                    f"The server does not have result file {gone[0]} of job {job.job_id} (any more), and its results "
                    "were not read before. Nothing is submitted again by itself: partial := true reads what there is, "
                    "the rest as missing, and mistral_batch_retry sends the missing ones."
                )
            try:
                with self._engine(scratch / "spill") as engine:
                    written = write_results(engine, job, files, target, partial=False)
            except IncompleteResultsError:
                if left and (not gone or missing is Missing.GONE):
                    told_anew = True
                    with suppress(ApiError):  # the next download tells
                        job = self._told_anew(job)
                    continue
                if missing is Missing.NONE or (missing is Missing.GONE and not gone):
                    raise
                with self._engine(scratch / "spill") as engine:
                    write_results(engine, job, files, target, partial=True)
                return None
            tally = written.tally
            if (tally.missing or tally.unnamed) and job.ended and not told_anew:
                # An end may be told before its counts and files are: what is kept as missing would stay so.
                told_anew, before = True, job
                try:
                    job = self._told_anew(job)
                except NotFoundError:  # nothing more will be told of it
                    pass
                except ApiError:
                    if missing is Missing.ANY:
                        return None
                    raise
                if job.report != before.report:
                    continue
            if not tally.unnamed:
                return written.lines
            if missing is Missing.ANY:
                return None
            raise IncompleteResultsError(
                f"The requests of job {job.job_id} are neither here nor at the server any more, and its result files "
                f"hold {tally.held:,} of its {tally.held + tally.unnamed:,} rows: the custom_ids of the other "
                f"{tally.unnamed:,} are not known. Nothing was kept. partial := true reads what there is; the other "
                "rows have to be submitted from your own table."
            )
        return None

    def _told_anew(self, job: Job) -> Job:
        """Return a job as the API has it now: its end may have been told a moment before its counts and files."""
        batches = self._batches
        if job.job_id is not None:
            batches.ledger.record(batches.client.get(job.job_id))
        return batches.ledger.jobs_by_key([job.key])[0]

    def _result_files(self, job: Job, scratch: Path) -> tuple[ResultFiles, list[str]]:
        """Download what the job names; also return the files that the server no longer has."""
        report = job.report
        named = [] if report is None else [report.output_file, report.error_file]
        answers, gone = [], []
        for number, file_id in enumerate(file_id for file_id in named if file_id):
            path = scratch / f"answers-{number}.jsonl"
            failpoint("before-download", writes=True)
            try:
                self._batches.client.download(file_id, path)
            except NotFoundError:
                gone.append(file_id)
            else:
                answers.append(path)
        submission = self._batches.ledger.submission(job.submission_id) if job.submission_id else None
        files = ResultFiles(
            answers=tuple(answers),
            submitted=self.submitted(job, scratch) or self._hashes(job),
            output=None if submission is None else submission.output,
        )
        return files, gone

    def submitted(self, job: Job, scratch: Path) -> Path | None:
        """Return the file of a job's requests: as spooled here, else as the server has them, else None."""
        if job.submission_id is not None:
            path = spool_path(self._batches.settings.home, job.submission_id, job.part)
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
            self._batches.client.download(file_ids[0], target)
            return
        joined, piece = target.with_suffix(".joined"), target.with_suffix(".piece")
        with joined.open("wb") as whole:
            for file_id in file_ids:
                self._batches.client.download(file_id, piece)
                with piece.open("rb") as lines:
                    shutil.copyfileobj(lines, whole)
                whole.write(b"\n")  # the last line may not end
        joined.replace(target)

    def _hashes(self, job: Job) -> Path | None:
        """Return what is kept of a job's requests once they are gone: their custom_ids and hashes."""
        from pyarrow import ArrowInvalid, parquet

        if job.submission_id is None:
            return None
        path = hashes_path(self._batches.settings.home, job)
        try:
            count = parquet.read_metadata(path).num_rows
        except (OSError, ArrowInvalid):  # gone, or damaged
            return None
        return path if job.request_count in (count, 0) else None

    def requests_needed(self, submission_id: str, part: int) -> bool:
        """Tell whether a part's spooled requests may be read again: not once every model has answered them all."""
        jobs = self._batches.ledger.jobs_of_part(submission_id, part)
        files = [self._kept(job) for job in jobs]
        if not files or any(file is None for file in files):
            return True
        with self._engine() as engine:
            return left_in(engine, [file for file in files if file is not None]) > 0

    def left(self, job: Job) -> int:
        """Return how many rows of a job, whose results were collected to retry it, are left to be sent again."""
        (job,) = self._batches.ledger.jobs_by_key([job.key])
        file = self._kept(job) or self._directory / f"{PARTIAL}{results_name(job)}"
        with self._engine() as engine:
            return left_in(engine, [file])

    def drop_requests(self, job: Job) -> bool:
        """Remove the spooled requests of a job's part, with their keys, and keep their hashes.

        False where the hashes cannot be written: the requests stay instead.
        """
        home = self._batches.settings.home
        path = spool_path(home, job.submission_id or "", job.part)
        if path.exists():
            with self._engine() as engine:
                if not keep_hashes(engine, path, home, job):
                    return False
        for file in (path, keys_path(path)):  # the requests go first: the keys are of no use alone
            failpoint("before-drop")
            file.unlink(missing_ok=True)
        with suppress(OSError):  # other parts are still there
            path.parent.rmdir()
        return True


def _without_running(jobs: Sequence[Job], gone: Collection[int] = ()) -> list[Job]:
    """Return jobs and their retries without the retries that have not ended; none where the first has not.

    Of jobs that the workspace does not know any more, by their keys, nothing is waited for.
    """
    running = {job.submission_id for job in jobs if not job.ended and job.key not in gone}
    return [] if jobs[0].submission_id in running else [job for job in jobs if job.submission_id not in running]
