"""Cancelling: jobs that were created are cancelled at the API, the others are dropped."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

from duckdb_mistral.batches.access import check_account, check_server
from duckdb_mistral.batches.lookup import find, reread
from duckdb_mistral.batches.send import Sender
from duckdb_mistral.errors import ApiError, ArgumentError, AuthenticationError, MistralBatchError, NotFoundError
from duckdb_mistral.jobs.job import LOST, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job


def cancel(context: Context, identifier: str) -> list[Job]:
    """Ask for the cancellation of every job of an id that has not ended; what was not created is dropped.

    A create whose answer was lost is looked for, and not sent again. Every job is asked before the first failure
    is raised.
    """
    jobs = find(context, identifier)
    check_server(context, [job for job in jobs if not job.ended])
    _look_before_dropping(context, jobs)
    _drop(context, jobs)  # before waiting for a process that sends them: it stops at what is dropped
    failures = list(_give_up(context, jobs))
    for job in reread(context, jobs):
        if job.job_id is not None and not job.ended:
            # A server that is in trouble is waited for once, not once for each job.
            with context.retry.within(0 if failures else math.inf):
                failures += _cancel(context, job.job_id)
    if failures:
        raise failures[0]
    return reread(context, jobs)


def _drop(context: Context, jobs: Iterable[Job]) -> None:
    for job in reread(context, jobs):
        if job.step in (Step.PLANNED, Step.HELD):
            context.ledger.move(job, Step.DROPPED, message="cancelled before it was created")


def _look_before_dropping(context: Context, jobs: Iterable[Job]) -> None:
    """Adopt what the API has of parts that were uploaded and not created: a refusal may not have been its own.

    If another process is working on the submission, it knows; if the API cannot be asked, they are dropped all
    the same.
    """
    ledger = context.ledger
    unsent = {job.submission_id for job in reread(context, jobs) if job.step in (Step.PLANNED, Step.HELD)}
    for submission in filter(None, (ledger.submission(one) for one in unsent if one is not None)):
        uploaded = {part.part for part in ledger.parts(submission.submission_id) if part.file_id}
        its = ledger.jobs(submission.submission_id)
        if not any(job.part in uploaded and job.step in (Step.PLANNED, Step.HELD) for job in its):
            continue
        with context.locks.trying(submission.submission_id) as held, suppress(MistralBatchError):
            if held:
                check_account(context, submission)
                Sender(context).look_for_unsent(submission)


def _give_up(context: Context, jobs: Sequence[Job]) -> Iterator[MistralBatchError]:
    """Look for jobs whose creates have lost their answers, which are not sent again; yield what went wrong."""
    ledger = context.ledger
    lost = [job.submission_id for job in reread(context, jobs) if job.step in LOST and job.submission_id]
    for submission in filter(None, map(ledger.submission, dict.fromkeys(lost))):
        with context.locks.waiting(submission.submission_id):
            _drop(context, jobs)
            for job in reread(context, jobs):
                if job.step is Step.SENDING and job.submission_id == submission.submission_id:
                    ledger.move(job, Step.GIVEN_UP)
            try:
                check_account(context, submission)
                Sender(context).look_for_lost(submission)
            except MistralBatchError as error:
                yield error


def _cancel(context: Context, job_id: str) -> Iterator[MistralBatchError]:
    """Ask for a job's cancellation; yield why it does not come to that. A refused key raises at once."""
    try:
        context.ledger.record(context.client.cancel(job_id))
    except AuthenticationError:
        raise
    except (NotFoundError, ArgumentError) as error:
        yield error
    except ApiError as error:
        try:
            report = context.client.get(job_id)  # it may have ended meanwhile, which is an answer
        except AuthenticationError:
            raise
        except ApiError:
            yield error
            return
        context.ledger.record(report)
        if not report.ended:
            yield error
