"""Waiting until every job of an id has ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from duckdb_mistral.batches.access import check_server
from duckdb_mistral.batches.describe import describe, not_sent
from duckdb_mistral.batches.lookup import find
from duckdb_mistral.batches.track import status_in_turn, unsent
from duckdb_mistral.errors import WaitTimeoutError
from duckdb_mistral.jobs.job import Job
from duckdb_mistral.settings import LONGEST_POLL_SECONDS, Settings
from duckdb_mistral.state.owner import read_only

if TYPE_CHECKING:
    from duckdb_mistral.batches.context import Context

POLL_GROWTH = 1.5

#: Sees jobs, and why they may be otherwise by now where the API could not be asked.
Watch = Callable[[Sequence[Job], str | None], None]


def wait(
    context: Context, identifier: str, timeout_seconds: float | None = None, watch: Watch | None = None
) -> list[Job]:
    """Return once every job of an id has ended; `watch` sees the jobs after each poll.

    Raises WaitTimeoutError past `timeout_seconds`; the jobs run on. Raises NotSentError if a part would wait
    forever. A failed poll does not end the wait.
    """
    if not context.ledger.writable and not all(job.ended for job in find(context, identifier)):
        raise read_only(context.home.path)
    clock = context.retry.clock
    until = clock() + (math.inf if timeout_seconds is None else timeout_seconds)
    for interval in intervals(context.settings):
        with context.retry.within(until - clock()):
            polled = status_in_turn(context, identifier, interval)
        jobs = polled.jobs
        if watch is not None:
            watch(jobs, polled.trouble)
        if all(job.ended for job in jobs):
            return jobs
        check_server(context, jobs)
        planned = unsent(context, jobs)
        if planned:
            raise not_sent(context, planned)
        left = until - clock()
        if timeout_seconds is not None and left <= 0:
            told = " ".join(filter(None, (describe(jobs), polled.trouble)))
            raise WaitTimeoutError(
                f"{told} The wait gave up after {timeout_seconds:g} seconds. "
                "The jobs run on; wait again whenever you like."
            )
        context.retry.pause(min(interval, left))
    raise AssertionError("the intervals have no end")


def intervals(settings: Settings) -> Iterator[float]:
    """Yield the seconds between polls without end, growing up to the longest."""
    interval = settings.poll_seconds
    longest = min(LONGEST_POLL_SECONDS, 30 * interval)
    while True:
        yield interval
        interval = min(interval * POLL_GROWTH, longest)
