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
    from collections.abc import Callable, Iterable

    from duckdb_mistral.api.client import BatchClient
    from duckdb_mistral.jobs.job import Job, JobReport
    from duckdb_mistral.runtime.retry_policy import Retry
    from duckdb_mistral.state.ledger import Ledger

#: Up to this many jobs are read one by one; more are read from the list's pages.
FEW_JOBS = 3


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What came of asking for jobs, beside what the ledger knows of them now."""

    #: Those that the workspace does not know.
    gone: tuple[Job, ...] = ()
    #: Why the API could not be asked for some; None where it answered.
    trouble: str | None = None


class Asker:
    """Asks one workspace for the jobs of one ledger."""

    def __init__(self, ledger: Ledger, client: Callable[[], BatchClient], retry: Retry) -> None:
        """Work with what is given; `client` is called when there is something to ask."""
        self._ledger = ledger
        self._client = client
        self._retry = retry

    def ask(self, jobs: Iterable[Job], *, anew: bool = False) -> Asked:
        """Ask for jobs, and record what is told of them; with `anew`, they have ended, and may go on all the same.

        A read that fails leaves the ledger as it is, and the first failure is the trouble; only a refused key is told
        at once. The others are still asked for where it may be of that one job, and are not waited for then.
        """
        wanted = {job.job_id: job for job in jobs if job.job_id is not None}
        gone: list[Job] = []
        trouble: str | None = None
        try:
            if len(wanted) > FEW_JOBS:
                self._ask_list(wanted, anew=anew)
            for job_id, job in wanted.items():
                try:
                    with self._retry.within(0 if trouble else math.inf):
                        self._ledger.record(self._client().get(job_id), anew=anew)
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
        return Asked(gone=tuple(gone), trouble=trouble)

    def _ask_list(self, wanted: dict[str, Job], *, anew: bool) -> None:
        """Take what the list's pages hold out of `wanted`."""
        oldest = min((job.report.created_at or 0) if job.report else 0 for job in wanted.values())
        found: list[JobReport] = []
        try:
            for report in self._client().jobs(created_after=max(0, oldest - 1_000_000)):
                if wanted.pop(report.job_id, None) is not None:
                    found.append(report)
                if not wanted:
                    return
        finally:
            self._ledger.record(*found, anew=anew)
