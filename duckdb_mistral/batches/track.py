"""How far jobs are: what the API tells of them now, and moving on what waits for room or has lost its answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from duckdb_mistral.batches.access import check_account
from duckdb_mistral.batches.describe import not_known, replaced
from duckdb_mistral.batches.give_way import give_way
from duckdb_mistral.batches.lookup import find, reread
from duckdb_mistral.batches.refresh import Refreshed, refresh
from duckdb_mistral.batches.send import Sender
from duckdb_mistral.batches.supply import elsewhere, lacking
from duckdb_mistral.batches.turns import OvertakenError
from duckdb_mistral.errors import (
    ApiError,
    ArgumentError,
    AuthenticationError,
    LedgerError,
    OutcomeUnknownError,
    SourceError,
)
from duckdb_mistral.jobs.job import LOST, Step, now
from duckdb_mistral.state.names import poll_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job, Submission

#: Steps that a status or a wait tries to advance.
MOVING = (*LOST, Step.HELD)


@dataclass(frozen=True, kw_only=True)
class Polled(Refreshed):
    """The jobs of an id, and what came of asking the API for them."""

    jobs: list[Job]


@dataclass(frozen=True, kw_only=True)
class PolledAll(Refreshed):
    """What came of asking the API for all jobs."""

    #: Why submissions do not go on, by their ids.
    reasons: Mapping[str | None, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What came of advancing submissions, by their ids."""

    #: Why they do not go on.
    reasons: dict[str | None, str] = field(default_factory=dict)
    #: Those that were taken over in their place, where another home was quicker.
    successors: dict[str | None, str] = field(default_factory=dict)


def status(context: Context, identifier: str | None = None) -> Polled:
    """Return the jobs of an id, or of every submission, as the API has them now.

    If the API cannot be asked about a job just now, it is returned as last seen; `checked_at` says when. Raises
    UnknownJobError if an id is given and the workspace does not know a job of it.
    """
    return _known(context, identifier, poll(context, identifier))


def status_in_turn(context: Context, identifier: str | None, seconds: float) -> Polled:
    """Return what `status` does, for one that asks again and again, every so many seconds.

    Of the machines that share a ledger and wait with the same key, one asks, for the jobs of all; the others read what
    it has recorded.
    """
    if identifier is None or not context.ledger.shared or not context.ledger.writable:
        return status(context, identifier)
    ledger, account = context.ledger, context.client.account
    jobs = find(context, identifier)
    accounts = {_account_of(context, submission_id) for submission_id in {job.submission_id for job in jobs}}
    # Whoever asks for all leaves out what another key has submitted: it may be of another workspace.
    if accounts != {account} or all(job.ended for job in jobs):
        return _known(context, identifier, poll(context, identifier, jobs))
    with context.locks.turn(poll_lock(account), seconds) as turn:
        beside = ledger.unsettled_jobs(account=account) if turn.is_ours else ()
        polled = poll(context, identifier, jobs, ask=turn.is_ours, beside=beside)
        turn.in_vain = polled.trouble is not None
    return _known(context, identifier, polled)


def _account_of(context: Context, submission_id: str | None) -> str | None:
    submission = context.ledger.submission(submission_id) if submission_id is not None else None
    return None if submission is None else submission.account


def _known(context: Context, identifier: str | None, polled: Polled) -> Polled:
    if polled.gone and identifier is not None:
        raise not_known(context, polled.gone[0])
    return polled


def poll(
    context: Context,
    identifier: str | None,
    jobs: Sequence[Job] | None = None,
    *,
    ask: bool = True,
    beside: Iterable[Job] = (),
) -> Polled:
    """Return the jobs as `status` does, whether the workspace knows them or not; `jobs`, if the caller has found them.

    Unless `ask`, as the ledger knows them; the API is asked for those `beside` in passing.
    """
    with context.ledger.kept_open():
        if jobs is None:
            jobs = find(context, identifier) if identifier is not None else context.ledger.jobs()
        if not context.ledger.writable:  # what the API says could not be written down
            return Polled(jobs=list(jobs))
        refreshed, moved = _moved_on(context, jobs, all_told=identifier is not None, ask=ask, beside=beside)
        if identifier in moved.successors:
            raise replaced(identifier, moved.successors[identifier])
        if moved.successors:
            jobs = find(context, identifier) if identifier is not None else context.ledger.jobs()
        found = _as_told(context, jobs, refreshed, moved.reasons)
    return Polled(jobs=found, gone=refreshed.gone, trouble=refreshed.trouble, told=refreshed.told)


def poll_all(context: Context) -> PolledAll:
    """Ask for every job that has not ended, as `poll` without an id does, and read no others."""
    if not context.ledger.writable:
        return PolledAll()
    with context.ledger.kept_open():
        refreshed, moved = _moved_on(context, context.ledger.unsettled_jobs(MOVING), all_told=False)
    return PolledAll(gone=refreshed.gone, trouble=refreshed.trouble, told=refreshed.told, reasons=moved.reasons)


def _moved_on(
    context: Context, jobs: Iterable[Job], *, all_told: bool, ask: bool = True, beside: Iterable[Job] = ()
) -> tuple[Refreshed, Moved]:
    """Advance the jobs that are at the server of these settings, and ask for them; return what came of both."""
    here = [job for job in jobs if job.server_url == context.settings.server_url]
    moved = _advance(context, here, all_told=all_told)
    if any(job.step in MOVING for job in here):
        here = reread(context, here)
    if not ask:
        return Refreshed(), moved
    there = context.settings.server_url
    return refresh(context, here, beside=(job for job in beside if job.server_url == there)), moved


def _as_told(
    context: Context, jobs: Sequence[Job], refreshed: Refreshed, reasons: Mapping[str | None, str]
) -> list[Job]:
    """Return jobs as they are now that the API was asked for those that had not ended."""
    moment = now()
    anew = {job.key: job for job in reread(context, [job for job in jobs if not job.ended])}
    found = []
    for before in jobs:
        job = anew.get(before.key, before)
        if job.step in MOVING:
            job = job.evolve(message=reasons.get(job.submission_id, job.message))
        elif job.job_id in refreshed.told:  # the time alone is not written down each time
            job = job.evolve(checked_at=moment)
        found.append(job)
    return found


def unsent(context: Context, jobs: Iterable[Job]) -> list[Job]:
    """Return the jobs that only a submit would create, of submissions that no process is working on."""
    planned = [job for job in jobs if job.step is Step.PLANNED and job.server_url == context.settings.server_url]
    found: list[Job] = []
    for submission_id in dict.fromkeys(job.submission_id for job in planned if job.submission_id):
        with context.locks.trying(submission_id) as held:
            if held:
                its = [job for job in planned if job.submission_id == submission_id]
                found += [job for job in reread(context, its) if job.step is Step.PLANNED]
    return found


def _advance(context: Context, jobs: Iterable[Job], *, all_told: bool) -> Moved:
    """Create what waits for room, and look for what was lost, unless another process is at it.

    What the API does not take now is tried again by the next call; a refused key raises at once, and with
    `all_told` also what stands in a submission's way for longer.
    """
    moved = Moved()
    reasons = moved.reasons
    waiting = dict.fromkeys(job.submission_id for job in jobs if job.submission_id and job.step in MOVING)
    for submission_id in waiting:
        submission = context.ledger.submission(submission_id)
        with context.locks.trying(submission_id) as held:
            if not held or submission is None:
                continue
            try:
                check_account(context, submission)
                successor = _sent_or_replaced(context, submission)
                if successor is not None:
                    moved.successors[submission_id] = successor.submission_id
                elif lacking(context, submission):
                    reasons[submission_id] = elsewhere(context)
            except AuthenticationError:
                raise
            except (ApiError, OutcomeUnknownError) as error:
                reasons[submission_id] = str(error)
            except (ArgumentError, SourceError, LedgerError) as error:
                if all_told:
                    raise
                reasons[submission_id] = str(error)
    return moved


def _sent_or_replaced(context: Context, submission: Submission) -> Submission | None:
    """Create what waits for room; return what was taken over in its place if another home was quicker."""
    try:
        Sender(context).advance(submission, held_only=True)
    except OvertakenError:
        return give_way(context, submission)
    return None
