"""Paying once per request: requests that are the same, within one submission or answered before under this `home`.

A request is known by the hash of its body; its endpoint, model and server by the ledger's jobs. All of it is joins of
DuckDB over the requests that wait here, the hashes kept of those that do not, and the kept results.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from duckdb_mistral.batches.access import check_account
from duckdb_mistral.batches.again import pauses_between_looks
from duckdb_mistral.batches.answers import answered_sql, is_wanted, jobs_of, keep_answers, were_answered
from duckdb_mistral.batches.download import DOWNLOADS, Missing
from duckdb_mistral.batches.fetch import Fetcher, were_stored
from duckdb_mistral.batches.gone import certainly_gone, check_files_gone
from duckdb_mistral.batches.hashes import keys_sql, known_part
from duckdb_mistral.batches.lookup import reread
from duckdb_mistral.batches.refresh import refresh, refresh_ended
from duckdb_mistral.batches.send import Sender
from duckdb_mistral.batches.spools import new_spool
from duckdb_mistral.batches.track import unsent
from duckdb_mistral.duck.engine import keep_build_sides, own_engine
from duckdb_mistral.duck.jsonl import register_requests
from duckdb_mistral.duck.qualifying import qualified
from duckdb_mistral.duck.sql_files import template
from duckdb_mistral.errors import (
    ApiError,
    ArgumentError,
    IncompleteResultsError,
    MistralBatchError,
    NotEndedError,
    NotFoundError,
)
from duckdb_mistral.jobs.job import Step
from duckdb_mistral.results.responses import kept_results, register_lines
from duckdb_mistral.state.names import pending_path

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    import duckdb

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.batches.reuse_files import Reused
    from duckdb_mistral.jobs.job import Job
    from duckdb_mistral.jobs.plan import Plan
    from duckdb_mistral.requests.spool import Spool

_PAID_TWICE = (
    "Nothing was sent, because requests that were answered might be paid for twice. Run the statement again, or leave "
    "out reuse := 'requests' to pay for them."
)
UNSENT = (Step.PLANNED, Step.HELD)


def divide(context: Context, plan: Plan, spool: Spool) -> tuple[Spool, Reused]:
    """Return a spool of the requests that have to be sent, and what is reused for the rest of `spool`.

    Of requests that are the same, one is sent. Results that nobody has read yet are fetched first. The new spool's
    directory names the submission that its files are of. Raises NotEndedError where a request waits for its answer in
    a job that has not ended, unless the plan is forced.
    """
    (model,) = plan.models
    requests = [part.path for part in spool.finish()]
    fresh = new_spool(context)
    try:
        with own_engine(fresh.spill) as engine:
            register_lines(engine)
            keep_build_sides(engine)
            engine.execute(f"CREATE TEMP TABLE wanted AS {keys_sql(engine, requests)}")
            gone = _fetch_unread(engine, context, plan.endpoint, model)
            reused = keep_answers(engine, context, plan.endpoint, model, fresh.directory.name)
            if not plan.force:
                _refuse_pending(engine, context, plan.endpoint, model, gone, fresh.directory)
            fresh.create_function(engine)
            register_requests(engine, "request_lines", requests)
            engine.execute(template("unsent_requests").substitute())
            fresh.finish()
    except BaseException:
        fresh.discard()
        raise
    return fresh, reused


def are_answered(context: Context, plan: Plan, jobs: Sequence[Job]) -> bool:
    """Tell whether requests of jobs that were recorded, and never sent, have been answered in other jobs since.

    Raises NotEndedError where they wait for their answers there.
    """
    (model,) = plan.models
    requests = list(filter(None, (known_part(context.home, job) for job in jobs)))
    if not requests:
        return False
    scratch = new_spool(context)
    try:
        with own_engine(scratch.spill) as engine:
            register_lines(engine)
            engine.execute(f"CREATE TEMP TABLE wanted AS {keys_sql(engine, requests)}")
            gone = _fetch_unread(engine, context, plan.endpoint, model)
            answered = were_answered(engine, context, plan.endpoint, model)
            _refuse_pending(engine, context, plan.endpoint, model, gone, scratch.directory)
            return answered
    finally:
        scratch.discard()


def unsent_sql(context: Context, plan: Plan) -> str:
    """Return the condition of a statement's requests, with the JSON column `body`, that have to be sent."""
    (model,) = plan.models
    answered = [f"SELECT request FROM ({select})" for _, select in answered_sql(context, plan.endpoint, model)]
    known = f" AND md5(body) NOT IN ({' UNION ALL '.join(answered)})" if answered else ""
    return qualified(f"row_number() OVER (PARTITION BY md5(body)) = 1{known}")


def _fetch_unread(engine: duckdb.DuckDBPyConnection, context: Context, endpoint: str, model: str) -> set[int]:
    """Keep the results of ended jobs that nobody has read yet, where they may answer what is wanted.

    Returns the keys of jobs that the workspace does not know.

    Results that cannot be had at all, as of another key's job, are passed over: what they answered is sent. Where they
    cannot be had just now, that would be paid for twice, so it raises what stands in the way.
    """
    unread = [
        job for job in jobs_of(context, endpoint, model) if job.job_id is not None and _is_unread(engine, context, job)
    ]
    read = [job for job in unread if job.results is not None]
    asked = [refresh(context, unread), refresh_ended(context, read)]
    for one in asked:
        if one.trouble is not None:
            raise ApiError(f"{one.trouble} {_PAID_TWICE}")
    try:
        gone = certainly_gone(context, [job for one in asked for job in one.gone])
    except ApiError as error:
        raise type(error)(f"{error} {_PAID_TWICE}") from None
    with closing(Fetcher(context)) as fetcher:
        # What was kept, and is gone from the store too, must not count as never answered.
        for job in reread(context, [job for job in unread if job.key not in gone or _is_lost(context, job)]):
            if job.ended:
                try:
                    fetcher.file(job, Missing.GONE)
                except (ArgumentError, NotFoundError):
                    continue
                except MistralBatchError as error:
                    raise type(error)(f"{error} {_PAID_TWICE}") from None
    return gone


def _refuse_pending(
    engine: duckdb.DuckDBPyConnection,
    context: Context,
    endpoint: str,
    model: str,
    gone: Collection[int],
    directory: Path,
) -> None:
    """Raise NotEndedError where what is wanted, and not answered, was sent and has not ended: it would be paid twice.

    What a submit did not come to counts where some process is at it; a job that is gone from the workspace does not.
    """
    _look_for_refused(engine, context, endpoint, model)
    open_jobs = [job for job in jobs_of(context, endpoint, model) if job.submission_id is not None and not job.ended]
    left_out = {job.key for job in unsent(context, open_jobs)} | set(gone)
    pending = {job: _asked(engine, context, job, directory) for job in open_jobs if job.key not in left_out}
    running = [job for job, count in pending.items() if count]
    if not running:
        return
    first, count = running[-1], sum(pending.values())
    ids = dict.fromkeys(job.submission_id for job in reversed(running))
    others = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
    raise NotEndedError(
        f"{count:,} of these requests {'waits' if count == 1 else 'wait'} for an answer in submission "
        f"{first.submission_id}{others}, of which job {first.job_id or '(not created yet)'} is {first.status}. Nothing "
        f"was sent, because they would be paid for twice. FROM mistral_batch_wait('{first.submission_id}') waits for "
        "their answers; the same statement then sends only the rest. Without reuse := 'requests' it pays for all."
    )


def _look_for_refused(engine: duckdb.DuckDBPyConnection, context: Context, endpoint: str, model: str) -> None:
    """Adopt the jobs of creates of what is wanted that were refused, where the workspace has them all the same."""
    sent_once = [job for job in jobs_of(context, endpoint, model) if job.step in UNSENT and job.was_sent]
    for job in unsent(context, sent_once):
        submission = context.ledger.submission(job.submission_id or "")
        if submission is not None and is_wanted(engine, context, job):
            with context.locks.waiting(submission.submission_id):
                try:
                    check_account(context, submission)
                except ArgumentError:  # of another workspace
                    continue
                Sender(context).look_for_unsent(submission)


def _asked(engine: duckdb.DuckDBPyConnection, context: Context, job: Job, directory: Path) -> int:
    """Return how many of the wanted requests that have no answer a job was sent."""
    part = known_part(context.home, job)
    if part is not None:
        return _unanswered(engine, part)
    # It was found in the workspace, whose file tells what it was sent.
    inputs = job.report.input_files if job.report is not None else ()
    path = pending_path(directory)
    try:
        if not inputs:
            return 0
        if not _downloaded(context, job, inputs[0], path):
            return 0
        return _unanswered(engine, path)
    except (ApiError, IncompleteResultsError) as error:
        raise type(error)(f"{error} {_PAID_TWICE}") from None
    finally:
        path.unlink(missing_ok=True)


def _downloaded(context: Context, job: Job, file_id: str, target: Path) -> bool:
    """Download the input file of a job; False where the workspace certainly has it no longer."""
    pauses = pauses_between_looks(context.settings.reconcile_seconds)
    for left in range(DOWNLOADS - 1, -1, -1):
        try:
            context.client.download(file_id, target)
        except NotFoundError:
            if left:
                context.retry.pause(next(pauses))
        else:
            return True
    check_files_gone(context, job, [file_id])
    return False


def _unanswered(engine: duckdb.DuckDBPyConnection, requests: Path) -> int:
    ((count,),) = engine.execute(
        f"SELECT count(DISTINCT request) FROM ({keys_sql(engine, [requests])}) "
        "WHERE request IN (SELECT request FROM wanted) AND request NOT IN (SELECT request FROM answered)"
    ).fetchall()
    return int(count)


def _is_lost(context: Context, job: Job) -> bool:
    return were_stored(context.home, job) and kept_results(context.home, job) is None


def _is_unread(engine: duckdb.DuckDBPyConnection, context: Context, job: Job) -> bool:
    """Tell whether a job may answer what is wanted, and has answers that are not kept, as far as is known.

    It may have some if no results are kept, or if some of their rows have no answer.
    """
    home = context.home
    # From a store, no results are brought that answer nothing.
    if home.store is not None and not is_wanted(engine, context, job):
        return False
    may_answer_more = kept_results(home, job) is None or job.results_missing != 0
    return may_answer_more and (home.store is not None or is_wanted(engine, context, job))
