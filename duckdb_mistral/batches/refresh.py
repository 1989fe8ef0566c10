"""Asking the API how jobs are: those that go on, and those that have ended where more of them may still come."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from duckdb_mistral.errors import (
    ApiError,
    ArgumentError,
    AuthenticationError,
    LimitError,
    NotFoundError,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job
    from duckdb_mistral.jobs.report import JobReport

#: Up to this many jobs are read one by one; more are read from the list's pages.
FEW_JOBS = 3


@dataclass(frozen=True, kw_only=True)
class Refreshed:
    """What came of asking for jobs, beside what the ledger knows of them now."""

    #: Those that the workspace does not know.
    gone: tuple[Job, ...] = ()
    #: Why the API could not be asked for some; None where it answered.
    trouble: str | None = None
    #: The API's ids of those that it told of.
    told: frozenset[str] = frozenset()


def refresh(context: Context, jobs: Iterable[Job], *, beside: Iterable[Job] = ()) -> Refreshed:
    """Ask for every job that has not ended, and record what the API says of it.

    Those `beside` are recorded too if the list tells of them, and are not asked for one by one.
    """
    return _ask(context, [job for job in jobs if not job.ended], beside=beside)


def refresh_ended(context: Context, jobs: Iterable[Job]) -> Refreshed:
    """Ask for jobs that have ended, which may go on all the same: the API may tell an end before counts and files."""
    here = context.settings.server_url
    return _ask(context, [job for job in jobs if job.ended and job.server_url == here], anew=True)


def _ask(context: Context, jobs: Iterable[Job], *, beside: Iterable[Job] = (), anew: bool = False) -> Refreshed:
    """Ask for jobs, and record what is told of them; with `anew`, they have ended, and may go on all the same.

    A read that fails leaves the ledger as it is, and the first failure is the trouble; only a refused key raises
    at once. The others are still asked for where it may be of that one job, and are not waited for then.
    """
    wanted = {job.job_id: job for job in jobs if job.job_id is not None}
    others = {job.job_id: job for job in beside if job.job_id is not None and job.job_id not in wanted}
    told: list[JobReport] = []
    gone: list[Job] = []
    trouble: str | None = None
    try:
        if len(wanted) + len(others) > FEW_JOBS:
            _ask_list(context, wanted, others, told)
        for job_id, job in wanted.items():
            try:
                with context.retry.within(0 if trouble else math.inf):
                    told.append(context.client.get(job_id))
            except NotFoundError:
                gone.append(job)
            except (AuthenticationError, LimitError, UnreachableError):
                raise
            except (ApiError, ArgumentError) as error:
                trouble = trouble or str(error)
    except AuthenticationError:
        raise
    except ApiError as error:
        trouble = trouble or str(error)
    finally:
        context.ledger.record(*told, anew=anew)
    return Refreshed(gone=tuple(gone), trouble=trouble, told=frozenset(report.job_id for report in told))


def _ask_list(context: Context, wanted: dict[str, Job], others: dict[str, Job], told: list[JobReport]) -> None:
    """Take what the list's pages hold out of `wanted` and `others`, and add it to `told`."""
    oldest = min((job.report.created_at or 0) if job.report else 0 for job in (*wanted.values(), *others.values()))
    for report in context.client.jobs(created_after=max(0, oldest - 1_000_000)):
        if wanted.pop(report.job_id, None) or others.pop(report.job_id, None):
            told.append(report)
        if not wanted and not others:
            return
