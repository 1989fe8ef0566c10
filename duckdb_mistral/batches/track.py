"""The use cases: submit, status, wait, results, cancel. No SQL of the caller's and no HTTP here."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from duckdb_mistral.api.client import BatchClient, checked_id
from duckdb_mistral.batches.access import check_account
from duckdb_mistral.batches.ask import Asked, Asker
from duckdb_mistral.batches.create import Sender
from duckdb_mistral.batches.spools import abandoned_spools, check_memory
from duckdb_mistral.errors import (
    ApiError,
    ArgumentError,
    AuthenticationError,
    LedgerError,
    MistralBatchError,
    NotFoundError,
    NotSentError,
    OutcomeUnknownError,
    SourceError,
    UnknownJobError,
    WaitTimeoutError,
)
from duckdb_mistral.jobs import failures
from duckdb_mistral.jobs.job import LOST, Job, JobReport, Step, Submission
from duckdb_mistral.requests.spool import Spool
from duckdb_mistral.runtime.retry_policy import Retry
from duckdb_mistral.settings import LONGEST_POLL_SECONDS, Settings
from duckdb_mistral.state.home import read_only
from duckdb_mistral.state.ledger import Ledger
from duckdb_mistral.state.locks import Locks

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

POLL_GROWTH = 1.5
#: What a status or a wait goes on with.
MOVING = (*LOST, Step.HELD)

#: Sees jobs, and why they may be otherwise by now where the API could not be asked.
Watch = Callable[[Sequence[Job], str | None], None]


@dataclass(frozen=True, kw_only=True)
class Polled:
    """The jobs of an id, and what came of asking the API for them."""

    jobs: list[Job]
    asked: Asked


class Batches:
    """Everything that the SQL functions and the command line do, for one set of settings."""

    def __init__(
        self,
        settings: Settings,
        *,
        client: Callable[[], BatchClient] | None = None,
        retry: Retry | None = None,
    ) -> None:
        """Open the ledger; `client` is called when the API is first needed, and the key with it."""
        self.settings = settings
        self.retry = retry or Retry(budget_seconds=settings.deadline_seconds)
        self.ledger = Ledger(settings.home)
        self._make_client = client or (lambda: BatchClient(settings, retry=self.retry))
        self._client: BatchClient | None = None
        self._client_lock = threading.Lock()
        self._locks = Locks(settings.home, self.retry)
        self._asker = Asker(self.ledger, lambda: self.client, self.retry)

    @property
    def client(self) -> BatchClient:
        """The workspace; raises MissingKeyError where there is no key."""
        with self._client_lock:
            if self._client is None:
                self._client = self._make_client()
            return self._client

    def close(self) -> None:
        """Close the connections to the API."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def new_spool(self) -> Spool:
        """Return an empty spool for the requests of a new submission; its directory has the submission's id.

        What submissions that never came to be recorded have left is removed. Raises LedgerError where the ledger is
        older than what lies beside it.
        """
        check_memory(self.settings.home, self.ledger)
        for path in abandoned_spools(self.settings.home, self.ledger, self._locks):
            shutil.rmtree(path, ignore_errors=True)
        submission_id = str(uuid4())

        def recorded() -> bool:
            """Tell whether the ledger has parts of this spool: an interrupt may come between that and keeping it."""
            try:
                return bool(self.ledger.parts(submission_id))
            except LedgerError:
                return True  # it cannot be told now; the next spool removes what nobody owns

        return Spool(
            self.settings.home / "spool" / submission_id,
            max_requests=min(self.settings.max_requests_per_job, self.settings.max_pending_requests),
            max_bytes=self.settings.max_bytes_per_file,
            release=self._locks.held(f"spool-{submission_id}"),
            owned=recorded,
        )

    def status(self, identifier: str | None = None) -> list[Job]:
        """Return the jobs of an id, or of every submission, as the API has them now.

        A job that the API cannot tell of just now comes as it was last seen, with the time of that.
        """
        return self.known(identifier).jobs

    def known(self, identifier: str | None) -> Polled:
        """Poll; raise UnknownJobError where an id is given and the workspace does not know a job of it."""
        polled = self.poll(identifier)
        if polled.asked.gone and identifier is not None:
            raise self.not_known(polled.asked.gone[0])
        return polled

    def not_known(self, job: Job) -> UnknownJobError:
        """Return the error that tells of a job that the workspace does not have."""
        named = job.submission_id or job.job_id
        return UnknownJobError(
            f"The workspace at {self.settings.server_url} does not know job {job.job_id} (any more). The ledger keeps "
            "its row; if the job belongs to another workspace, use that workspace's key. What other jobs answered is "
            f"read by mistral_batch_results('{named}', partial := true)."
        )

    def poll(self, identifier: str | None) -> Polled:
        """Return the jobs as `status` does, whether the workspace knows them or not."""
        jobs = self.find(identifier) if identifier is not None else self.ledger.jobs()
        if not self.ledger.writable:  # what the API says could not be written down
            return Polled(jobs=jobs, asked=Asked())
        here = [job for job in jobs if job.server_url == self.settings.server_url]
        reasons = self._pump(here, all_told=identifier is not None)
        asked = self.refresh(self._reread(here))
        found = [
            job.evolve(message=reasons.get(job.submission_id, job.message)) if job.step in MOVING else job
            for job in self._reread(jobs)
        ]
        return Polled(jobs=found, asked=asked)

    def wait(self, identifier: str, timeout_seconds: float | None = None, watch: Watch | None = None) -> list[Job]:
        """Return once every job of an id has ended; `watch` sees the jobs after each poll.

        Raises WaitTimeoutError past `timeout_seconds`; the jobs run on. Raises NotSentError where a part would wait
        for ever. A poll that fails ends nothing.
        """
        if not self.ledger.writable and not all(job.ended for job in self.find(identifier)):
            raise read_only(self.settings.home)
        until = self.retry.clock() + (math.inf if timeout_seconds is None else timeout_seconds)
        for interval in self.intervals():
            with self.retry.within(until - self.retry.clock()):
                polled = self.known(identifier)
            jobs, trouble = polled.jobs, polled.asked.trouble
            if watch is not None:
                watch(jobs, trouble)
            if all(job.ended for job in jobs):
                return jobs
            self.check_server(jobs)
            unsent = self.unsent(jobs)
            if unsent:
                raise self.not_sent(unsent)
            left = until - self.retry.clock()
            if timeout_seconds is not None and left <= 0:
                told = " ".join(filter(None, (describe(jobs), trouble)))
                raise WaitTimeoutError(
                    f"{told} That is not the end, and {timeout_seconds:g} seconds have passed. "
                    "The jobs run on; wait again whenever you like."
                )
            self.retry.pause(min(interval, left))
        raise AssertionError("the intervals have no end")

    def unsent(self, jobs: Iterable[Job]) -> list[Job]:
        """Return the jobs that only a submit would create, of submissions that no process is at."""
        planned = [job for job in jobs if job.step is Step.PLANNED and job.server_url == self.settings.server_url]
        found: list[Job] = []
        for submission_id in dict.fromkeys(job.submission_id for job in planned if job.submission_id):
            with self._locks.trying(submission_id) as held:
                if held:
                    its = [job for job in planned if job.submission_id == submission_id]
                    found += [job for job in self._reread(its) if job.step is Step.PLANNED]
        return found

    def not_sent(self, unsent: Sequence[Job]) -> NotSentError:
        """Return the error that tells of unsent jobs: which, why where that is known, and what to do."""
        first = unsent[0]
        others = {1: "", 2: " and another one"}.get(len(unsent), f" and {len(unsent) - 1} others")
        submission = self.ledger.submission(str(first.submission_id))
        statement = "mistral_batch_retry" if submission is not None and submission.retry_of else "the submit statement"
        return NotSentError(
            f"Part {first.part} of submission {first.submission_id}{others} "
            f"{'were' if others else 'was'} not sent. "
            f"{f'{first.message} ' if first.message else ''}Run {statement} again, which goes on with it, or give it "
            f"up with mistral_batch_cancel('{first.submission_id}')."
        )

    def intervals(self) -> Iterator[float]:
        """Yield the seconds between polls without end, growing up to the longest."""
        interval = self.settings.poll_seconds
        longest = min(LONGEST_POLL_SECONDS, 30 * interval)
        while True:
            yield interval
            interval = min(interval * POLL_GROWTH, longest)

    def cancel(self, identifier: str) -> list[Job]:
        """Ask for the cancellation of every job of an id that has not ended; what was not created is dropped.

        A create whose answer was lost is looked for, and not sent again. Every job is asked before the first failure
        is raised.
        """
        jobs = self.find(identifier)
        self.check_server([job for job in jobs if not job.ended])
        self._look_before_dropping(jobs)
        self._drop(jobs)  # before waiting for a process that sends them: it stops at what is dropped
        failures = list(self._give_up(jobs))
        for job in self._reread(jobs):
            if job.job_id is not None and not job.ended:
                # A server that is in trouble is waited for once, not once for each job.
                with self.retry.within(0 if failures else math.inf):
                    failures += self._cancel(job.job_id)
        if failures:
            raise failures[0]
        return self._reread(jobs)

    def workspace_jobs(
        self, *, statuses: Sequence[str] | None, model: str | None, created_after: int | None
    ) -> Iterator[JobReport]:
        """Yield the workspace's jobs, whoever created them, newest first."""
        return self.client.jobs(statuses=statuses, model=model, created_after=created_after)

    def models(self) -> list[dict[str, Any]]:
        """Return the models that the key may use."""
        return self.client.models()

    def find(self, identifier: str) -> list[Job]:
        """Return the jobs of a submission, or of another program's job, and of its retries; else one job alone.

        They are as the ledger has them, or as the API has one that is new here.
        """
        identifier = checked_id(identifier)
        if self.ledger.submission(identifier) is not None:
            jobs = self.ledger.jobs(identifier)
        else:
            job = self.ledger.job(identifier) or self._adopted(identifier)
            jobs = [job]
        retries = self.ledger.retries([identifier, *(job.job_id for job in jobs if job.job_id)])
        return jobs + [job for retry in retries for job in self.ledger.jobs(retry.submission_id)]

    def _adopted(self, job_id: str) -> Job:
        """Take a job that another program created into the ledger."""
        try:
            return self.ledger.adopt(self.client.get(job_id), self.settings.server_url)
        except NotFoundError:
            raise UnknownJobError(
                f"There is no submission or job {job_id}: neither the ledger under {self.settings.home} nor the "
                f"workspace at {self.settings.server_url} knows it. mistral_batch_status() lists your submissions, "
                "mistral_batch_jobs() the workspace's jobs."
            ) from None

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Hold a lock between processes, for what must be done once."""
        return self._locks.waiting(name)

    def sender(self) -> Sender:
        """Return what creates jobs."""
        return Sender(self.settings, self.ledger, self.client, self._locks, self.retry)

    def check_account(self, submission: Submission, *, take_over: bool = False) -> None:
        """Make sure that this key sees the workspace of a submission that another key made."""
        check_account(self.ledger, self.client, submission, take_over=take_over)

    def check_server(self, jobs: Iterable[Job]) -> None:
        """Make sure that jobs are at the server that these settings name; raises ArgumentError."""
        for job in jobs:
            if job.server_url != self.settings.server_url:
                raise ArgumentError(
                    f"Job {job.job_id or '(not created yet)'} belongs to {job.server_url}, but this connection talks "
                    f"to {self.settings.server_url}. Set MISTRAL_SERVER_URL (or server_url) to that address."
                )

    # Reading

    def _reread(self, jobs: Iterable[Job]) -> list[Job]:
        return self.ledger.jobs_by_key([job.key for job in jobs])

    def _drop(self, jobs: Iterable[Job]) -> None:
        for job in self._reread(jobs):
            if job.step in (Step.PLANNED, Step.HELD):
                self.ledger.move(job, Step.DROPPED, message="cancelled before it was created")

    def _look_before_dropping(self, jobs: Iterable[Job]) -> None:
        """Adopt what the API has of parts that were uploaded and not created: a refusal may not have been its own.

        Where another process is at a submission, it knows; and where the API cannot be asked, they are dropped all
        the same.
        """
        unsent = {job.submission_id for job in self._reread(jobs) if job.step in (Step.PLANNED, Step.HELD)}
        for submission in filter(None, (self.ledger.submission(one) for one in unsent if one is not None)):
            uploaded = {part.part for part in self.ledger.parts(submission.submission_id) if part.file_id}
            its = self.ledger.jobs(submission.submission_id)
            if not any(job.part in uploaded and job.step in (Step.PLANNED, Step.HELD) for job in its):
                continue
            with self._locks.trying(submission.submission_id) as held, suppress(MistralBatchError):
                if held:
                    self.check_account(submission)
                    self.sender().look_for_unsent(submission)

    def _give_up(self, jobs: Sequence[Job]) -> Iterator[MistralBatchError]:
        """Look for jobs whose creates have lost their answers, which are not sent again; yield what went wrong."""
        lost = [job.submission_id for job in self._reread(jobs) if job.step in LOST and job.submission_id]
        for submission in filter(None, map(self.ledger.submission, dict.fromkeys(lost))):
            with self._locks.waiting(submission.submission_id):
                self._drop(jobs)
                for job in self._reread(jobs):
                    if job.step is Step.SENDING and job.submission_id == submission.submission_id:
                        self.ledger.move(job, Step.GIVEN_UP)
                try:
                    self.check_account(submission)
                    self.sender().look_for_lost(submission)
                except MistralBatchError as error:
                    yield error

    def _pump(self, jobs: Iterable[Job], *, all_told: bool) -> dict[str | None, str]:
        """Create what waits for room, and look for what was lost, unless another process is at it.

        What the API does not take now is tried again by the next call; a refused key is told at once, and with
        `all_told` also what stands in a submission's way for longer. Returns why submissions do not go on.
        """
        reasons: dict[str | None, str] = {}
        waiting = dict.fromkeys(job.submission_id for job in jobs if job.submission_id and job.step in MOVING)
        for submission_id in waiting:
            submission = self.ledger.submission(submission_id)
            with self._locks.trying(submission_id) as held:
                if not held or submission is None:
                    continue
                try:
                    self.check_account(submission)
                    self.sender().advance(submission, held_only=True)
                except AuthenticationError:
                    raise
                except (ApiError, OutcomeUnknownError) as error:
                    reasons[submission_id] = str(error)
                except (ArgumentError, SourceError, LedgerError) as error:
                    if all_told:
                        raise
                    reasons[submission_id] = str(error)
        return reasons

    def refresh(self, jobs: Iterable[Job]) -> Asked:
        """Ask the API for every job that has not ended, as Asker.ask does."""
        return self._asker.ask(job for job in jobs if not job.ended)

    def ask_again(self, jobs: Iterable[Job]) -> Asked:
        """Ask the API for jobs that have ended: their word, counts and files may have come too early."""
        return self._asker.ask(
            (job for job in jobs if job.ended and job.server_url == self.settings.server_url), anew=True
        )

    def _cancel(self, job_id: str) -> Iterator[MistralBatchError]:
        """Ask for a job's cancellation; yield why it does not come to that. A key that is refused is told at once."""
        try:
            self.ledger.record(self.client.cancel(job_id))
        except AuthenticationError:
            raise
        except (NotFoundError, ArgumentError) as error:
            yield error
        except ApiError as error:
            try:
                report = self.client.get(job_id)  # it may have ended meanwhile, which is an answer
            except AuthenticationError:
                raise
            except ApiError:
                yield error
                return
            self.ledger.record(report)
            if not report.ended:
                yield error


def describe(jobs: Sequence[Job]) -> str:
    """Return how far jobs are, in one or two sentences."""
    from collections import Counter

    counts = Counter(job.status for job in jobs)
    done = sum(job.report.completed_requests for job in jobs if job.report)
    done += sum(job.request_count for job in jobs if job.step is Step.ANSWERED)
    total = sum(job.request_count for job in jobs)
    words = ", ".join(f"{count} {status}" for status, count in counts.items())
    if len(jobs) == 1 and jobs[0].step is Step.ANSWERED:
        return f"All {total:,} requests were answered before."
    if len(jobs) == 1:
        return (
            f"Job {jobs[0].job_id or '(not created yet)'} is {jobs[0].status}: {done:,} of {total:,} requests are done"
            f"{failures.told(jobs)}."
        )
    return f"Of {len(jobs)} jobs, {words}: {done:,} of {total:,} requests are done{failures.told(jobs)}."
