"""Sending again what a submission left: the requests that failed or have no result, and no other."""

from __future__ import annotations

import shutil
from contextlib import closing
from typing import TYPE_CHECKING

from duckdb_mistral.api.ids import checked_id
from duckdb_mistral.api.listing import read, widened
from duckdb_mistral.batches import late
from duckdb_mistral.batches.access import check_workspace
from duckdb_mistral.batches.collect import collect_to_retry
from duckdb_mistral.batches.describe import describe, not_sent
from duckdb_mistral.batches.fetch import Fetcher
from duckdb_mistral.batches.learn import learn_retries, learn_submission
from duckdb_mistral.batches.lookup import find
from duckdb_mistral.batches.spools import new_spool
from duckdb_mistral.batches.submit import Submitter
from duckdb_mistral.batches.submitted import submitted
from duckdb_mistral.batches.supply import lacking, supply
from duckdb_mistral.batches.track import status, unsent
from duckdb_mistral.errors import ArgumentError, IncompleteResultsError, NotEndedError, OutcomeUnknownError
from duckdb_mistral.jobs.plan import Plan
from duckdb_mistral.jobs.tags import given_metadata
from duckdb_mistral.results.generations import spool_left
from duckdb_mistral.state.names import REUSE_LOCK, retry_lock, spool_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from duckdb_mistral.batches.collect import Family
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job, Submission
    from duckdb_mistral.requests.spool import Spool


class Retrier:
    """Retries submissions and jobs of one context."""

    def __init__(self, context: Context) -> None:
        """Work with the ledger and the client of `context`."""
        self._context = context
        self._fetcher = Fetcher(context)

    def retry(self, identifier: str) -> list[tuple[Job, bool]]:
        """Submit what a submission or job and its retries left; return the jobs that do that.

        A retry that has not ended yet is continued, not replaced, and nothing is sent if nothing is left. Raises
        NotEndedError where the submission itself has not ended: its answers may still come; NotSentError where a part
        of it waits for its submit statement; and ArgumentError where this key or server is not the one that has its
        jobs: they would look as if nothing had been answered.
        """
        identifier = checked_id(identifier)
        find(self._context, identifier)
        self._learn_submission(identifier)
        while True:
            sent = self._retried(identifier, self._root(identifier))
            if sent is not None:
                return sent

    def _retried(self, identifier: str, root: str) -> list[tuple[Job, bool]] | None:
        """Return what `retry` does; None where the workspace has retries that the ledger did not know until now."""
        known = find(self._context, root)
        check_workspace(self._context, known)
        with self._context.locks.waiting(retry_lock(root)), closing(self._fetcher):
            self._forget_lost(job.submission_id for job in known if job.submission_id != root)
            jobs = late.ask_to_pay(self._context, self._fetcher.engine, status(self._context, root).jobs)
            first = [job for job in jobs if (job.submission_id or job.job_id) == root]
            if not all(job.ended for job in first):
                planned = unsent(self._context, first)
                if planned:
                    raise not_sent(self._context, planned)
                raise NotEndedError(
                    f"{describe(first)} What is left can be sent again once everything has ended: "
                    f"FROM mistral_batch_wait('{root}') waits for it. Nothing was sent."
                )
            running = dict.fromkeys(job.submission_id for job in jobs if not job.ended and job.submission_id)
            if running:
                # What was refused, or not come to, is sent now.
                submissions = list(filter(None, map(self._context.ledger.submission, running)))
                for submission in submissions:
                    self._supply(submission, first)
                with self._context.locks.waiting(REUSE_LOCK):  # reuse does not wait for what is about to be sent here
                    return [row for submission in submissions for row in Submitter(self._context).resume(submission)]
            wanted = [job for job in first if job.job_id == identifier] or first
            rows: list[tuple[Job, bool]] = []
            for family in self._families(root):
                sent = self._send(wanted, jobs, family)
                if sent is None:
                    return None
                rows += sent
            return rows

    def _learn_submission(self, identifier: str) -> None:
        """Learn of the submission of a job that an older version has taken for another program's."""
        job = self._context.ledger.job(identifier)
        if job is None or job.submission_id is not None or job.report is None:
            return
        submission_id = job.report.tags.submission_id
        if submission_id is None or self._context.ledger.submission(submission_id) is not None:
            return
        found = learn_submission(self._context, submission_id)
        if found is not None and found.is_whole and self._context.ledger.submission(submission_id) is None:
            return  # its home alone knows all of its rows: the job stands for itself
        if found is None or not found.is_whole:
            raise OutcomeUnknownError(
                f"Job {identifier} is one of submission {submission_id} of another home, not all jobs of which are "
                "listed. Nothing was sent. Run the statement again once that home has created all of them."
            )

    def _root(self, identifier: str) -> str:
        """Return the submission, or the other program's job, that an id's requests were first sent with."""
        ledger = self._context.ledger
        job = ledger.job(identifier)
        identifier = job.submission_id or identifier if job is not None else identifier
        submission = ledger.submission(identifier)
        return self._root(submission.retry_of) if submission is not None and submission.retry_of else identifier

    def _forget_lost(self, retries: Iterable[str | None]) -> None:
        """Forget retries that have not sent anything and lack their requests: what they were to send is built again."""
        for submission_id in dict.fromkeys(filter(None, retries)):
            submission = self._context.ledger.submission(submission_id)
            if submission is not None:
                Submitter(self._context).forget_lost(submission)

    def _supply(self, retry: Submission, first: Sequence[Job]) -> None:
        """Make the requests be here of a retry that another machine has begun: they are among those of the first."""
        context = self._context
        if not lacking(context, retry):
            return
        scratch = context.home.retry_scratch(retry.submission_id)
        with context.locks.waiting(retry.submission_id), context.locks.waiting(spool_lock(retry.submission_id)):
            shutil.rmtree(scratch, ignore_errors=True)
            try:
                scratch.mkdir(mode=0o700, parents=True)
                jobs = [job for job in first if job.model in retry.models]
                requests = [submitted(context, job, scratch) for job in jobs]
                supply(context, retry, list(filter(None, requests)))
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

    def _families(self, root: str) -> tuple[Family, ...]:
        """Return the results of a submission and its retries; a row that was paid for is missing only if it is lost."""
        try:
            return collect_to_retry(self._context, root).families
        except IncompleteResultsError as error:
            raise IncompleteResultsError(
                f"{error} Nothing was sent, because what was answered would be paid for twice. If this keeps "
                "happening, submit from your own table the rows that partial := true reports as missing."
            ) from None

    def _send(self, wanted: Sequence[Job], known: Sequence[Job], family: Family) -> list[tuple[Job, bool]] | None:
        """Submit what the results of one model leave of the requests of `wanted`.

        `known` are the jobs of the submission and of its retries. Returns None where there are more of these.
        """
        jobs = [job for job in wanted if job.model == family.model]
        latest = known[-1].submission_id or str(known[-1].job_id)
        spool = new_spool(self._context)
        try:
            fingerprint = self._spool_left(jobs, family, spool)
            if fingerprint is None:
                return []
            plan = self._plan(jobs[0], latest)
            listed = read(self._context.client)
            if listed.may_be_cut:
                listed = widened(self._context.client, listed, since=0, models=plan.models)
            if learn_retries(self._context, known, listed, plan):
                return None
            # What reuse divides at the same moment has to see what this sends.
            with self._context.locks.waiting(REUSE_LOCK):
                return Submitter(self._context).submit(plan, spool, fingerprint)
        finally:
            spool.discard()

    def _spool_left(self, jobs: Sequence[Job], family: Family, spool: Spool) -> str | None:
        """Write what the jobs left into `spool`; return its fingerprint, None where nothing is left."""
        # Named after the spool, whose lock tells that somebody is at both.
        scratch = self._context.home.retry_scratch(spool.directory.name)
        try:
            scratch.mkdir(mode=0o700)
            requests = self._requests(jobs, scratch)
            return spool_left(requests, family.generations, spool) if requests else None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _requests(self, jobs: Sequence[Job], scratch: Path) -> list[Path]:
        """Return the request files of the jobs that left something."""
        files = []
        for job in jobs:
            if not self._fetcher.left(job):
                continue
            file = submitted(self._context, job, scratch)
            if file is None:
                raise IncompleteResultsError(
                    f"The requests of job {job.job_id or job.part} are gone, both here and at the server, so "
                    "what it left cannot be sent again. Submit those rows from your own table: the results WHERE "
                    "outcome <> 'ok' name them."
                )
            files.append(file)
        return files

    def _plan(self, job: Job, latest: str) -> Plan:
        """Return the plan of a job's submission for its model alone; or that of another program's job."""
        submission = self._context.ledger.submission(job.submission_id) if job.submission_id else None
        if submission is not None:
            return Plan(
                endpoint=submission.endpoint,
                models=(job.model,),
                timeout_hours=submission.timeout_hours,
                metadata=given_metadata(submission.metadata),
                output=submission.output,
                retry_of=latest,
            )
        if not job.model:
            raise ArgumentError(
                f"Job {job.job_id} ran on an agent, not a model, so only the program that created it can retry it."
            )
        metadata = job.report.metadata if job.report is not None else ()
        return Plan(
            endpoint=job.endpoint,
            models=(job.model,),
            metadata=given_metadata(metadata),
            retry_of=latest,
        )
