"""What a person sees while waiting: a bar per job on a terminal, plain lines elsewhere, always on standard error."""

from __future__ import annotations

import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from duckdb_mistral.batches.access import check_server
from duckdb_mistral.batches.context import Context
from duckdb_mistral.batches.describe import describe, not_sent
from duckdb_mistral.batches.track import status_in_turn, unsent
from duckdb_mistral.batches.wait import Watch, intervals
from duckdb_mistral.jobs.failures import failed
from duckdb_mistral.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from duckdb_mistral.jobs.job import Job


@contextmanager
def watching() -> Iterator[Watch]:
    """Yield a function that shows jobs as they are; what it showed is closed at the end."""
    if sys.stderr.isatty():
        with _bars() as watch:
            yield watch
    else:
        yield _lines()


def follow(identifier: str | None) -> bool:
    """Show the jobs of an id until all have ended, or Ctrl-C; without id, those of all submissions that go on now.

    Returns whether all have ended. Jobs of another server, that the workspace has forgotten, or that only a submit
    would create, are not waited for: nothing will be heard of them. Those that wait for a submit are named at the end,
    and so are those of another server if an id is given.
    """
    with closing(Context.of_environment()) as context:
        with watching() as watch:
            try:
                planned = _follow(context, identifier, watch)
            except KeyboardInterrupt:
                return False
        for submission_id in dict.fromkeys(job.submission_id for job in planned):
            its = [job for job in planned if job.submission_id == submission_id]
            print(not_sent(context, its), file=sys.stderr, flush=True)  # noqa: T201  this is the place that talks
    return not planned


def _follow(context: Context, identifier: str | None, watch: Watch) -> list[Job]:
    """Let `watch` see the jobs until those have ended that go on; return those that only a submit would create."""
    server_url = context.settings.server_url
    seen: set[int] = set()
    for pause in intervals(context.settings):
        polled = status_in_turn(context, identifier, pause)
        jobs = polled.jobs
        planned = unsent(context, jobs)
        if identifier is not None:
            check_server(context, (job for job in jobs if not job.ended))
            if planned:
                raise not_sent(context, planned)
        lost = {job.key for job in (*polled.gone, *planned)}
        jobs = [job for job in jobs if job.server_url == server_url and job.key not in lost]
        seen |= {job.key for job in jobs if identifier is not None or not job.ended}
        shown = [job for job in jobs if job.key in seen]
        if shown:
            watch(shown, polled.trouble)
        if all(job.ended for job in shown):
            return planned
        context.retry.pause(pause)
    raise AssertionError("the intervals have no end")


def _lines() -> Watch:
    """Return a function that writes a line when something has changed."""
    last = ""

    def watch(jobs: Sequence[Job], trouble: str | None) -> None:
        nonlocal last
        line = " ".join(filter(None, (describe(jobs), _asked_again(trouble))))
        if line != last:
            last = line
            print(printable(line), file=sys.stderr, flush=True)  # noqa: T201  this is the place that talks

    return watch


def tell(text: str | None) -> None:
    """Print a text on standard error, if there is one."""
    if text is not None:
        print(printable(text), file=sys.stderr, flush=True)  # noqa: T201  this is the place that talks


def _named(job: Job) -> str:
    return job.job_id[:8] if job.job_id else "not created"


def _failed(job: Job) -> str:
    count = failed([job])
    return f", {count:,} failed" if count else ""


def _asked_again(trouble: str | None) -> str | None:
    return None if trouble is None else f"{trouble} Asking again."


@contextmanager
def _bars() -> Iterator[Watch]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks = {}
        told: str | None = None

        def watch(jobs: Sequence[Job], trouble: str | None) -> None:
            nonlocal told
            before, told = told, _asked_again(trouble)
            if told not in (None, before):
                progress.console.print(told, markup=False, highlight=False)
            for job in jobs:
                if job.key not in tasks:
                    tasks[job.key] = progress.add_task("", total=job.request_count, speed="")
                task = progress.tasks[progress.task_ids.index(tasks[job.key])]
                done = job.request_count if job.succeeded else job.report.completed_requests if job.report else 0
                progress.update(
                    tasks[job.key],
                    description=escape(printable(f"{_named(job)} {job.status}{_failed(job)}")),
                    completed=done,
                    speed=f"{task.speed:,.0f}/s" if task.speed else "",
                )

        yield watch
