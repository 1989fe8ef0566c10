"""Answers that are kept under this `home`: which requests they answer, and those that a submission takes over."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import duckdb

from duckdb_mistral.batches.hashes import has_hashes, keep_hashes, keys_sql, known_part
from duckdb_mistral.batches.reuse_files import Reused, put_reused
from duckdb_mistral.duck.engine import disk_is_full, own_engine
from duckdb_mistral.duck.quoting import literal
from duckdb_mistral.duck.sql_files import template
from duckdb_mistral.errors import LedgerError
from duckdb_mistral.jobs.job import Step
from duckdb_mistral.results.convert import PARQUET
from duckdb_mistral.results.provenance import option
from duckdb_mistral.results.responses import kept_results, kept_rows, stored_rows
from duckdb_mistral.state.names import results_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.jobs.job import Job
    from duckdb_mistral.state.home import Home

#: Answers are looked for again where a file went meanwhile: another process collected a job, whose requests then leave
#: their hashes in their place.
LOOKS = 5

Found = TypeVar("Found")


def answered_sql(
    context: Context, endpoint: str, model: str, may_be_wanted: Callable[[Job], bool] = lambda _: True
) -> Iterator[tuple[Path, str]]:
    """Yield the files of answers that are kept, newest job first, each with a SELECT of what they answer.

    Its columns are request and answered_as, the answer's own custom_id.
    """
    for job in jobs_of(context, endpoint, model):
        if not may_be_wanted(job):
            continue
        results = kept_results(context.home, job)
        requests = None if results is None else hashed_requests(context, job)
        if requests is not None and results is not None:
            select = (
                f"SELECT requests.request, results.custom_id AS answered_as FROM ({requests}) AS requests "
                f"JOIN {stored_rows([results])} AS results USING (custom_id) WHERE results.outcome = 'ok'"
            )
            yield results, select


def jobs_of(context: Context, endpoint: str, model: str) -> Iterator[Job]:
    """Yield the jobs whose answers may be used, newest first."""
    for job in reversed(context.ledger.jobs()):
        if (job.endpoint, job.model, job.server_url) == (endpoint, model, context.settings.server_url):
            yield job


def hashed_requests(context: Context, job: Job) -> str | None:
    """Return the SELECT of a job's custom_ids and request hashes, where its requests or their hashes are here."""
    if job.submission_id is None or job.step is Step.ANSWERED:  # which is of the requests of other jobs
        return None
    home = context.home
    if not has_hashes(home, job):
        with context.locks.waiting(results_lock(job)):
            if not has_hashes(home, job):
                part = known_part(home, job)
                if part is None or not _hashed(part, home, job):
                    return None
    return f"SELECT custom_id, request FROM read_parquet({literal(home.hashes(job))})"


def is_wanted(engine: duckdb.DuckDBPyConnection, context: Context, job: Job) -> bool:
    """Tell whether a job was sent some request of the table `wanted`; its requests or their hashes may be gone."""
    if job.submission_id is None or job.step is Step.ANSWERED:
        return False
    try:
        if has_hashes(context.home, job):
            requests = f"SELECT request FROM read_parquet({literal(context.home.hashes(job))})"
        else:
            part = known_part(context.home, job)
            if part is None:
                return False
            requests = keys_sql(engine, [part])
        found = engine.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM ({requests}) WHERE request IN (SELECT request FROM wanted) LIMIT 1)"
        ).fetchall()
    # Another process reads the results, and the requests went; or the hashes are damaged.
    except (OSError, duckdb.IOException, duckdb.InvalidInputException):
        return True
    return bool(found[0][0])


def _hashed(requests: Path, home: Home, job: Job) -> bool:
    with own_engine() as engine:
        return keep_hashes(engine, requests, home, job)


def keep_answers(
    engine: duckdb.DuckDBPyConnection, context: Context, endpoint: str, model: str, submission_id: str
) -> Reused:
    """Write the rows that were answered before and the list of copies; both are read with the submission's results.

    The table `answered` then says which requests have an answer, and where.
    """
    home = context.home
    found, copies = home.found(submission_id), home.copies(submission_id)
    try:
        for path in (found, copies):
            path.parent.mkdir(mode=0o700, exist_ok=True)
        rows = _found(engine, context, endpoint, model, submission_id)
        copied = _written(engine, template("copied_requests").substitute(), copies, submission_id)
    except (OSError, duckdb.IOException) as error:
        reason = str(error).splitlines()[0]
        raise LedgerError(
            f"The answers to reuse could not be written to {home} ({reason}), so nothing was sent. Free some space "
            "there and run the statement again."
        ) from error
    reused = Reused(found=rows, copies=copied, results=found if rows else None)
    put_reused(home, submission_id, reused)
    return reused


def were_answered(engine: duckdb.DuckDBPyConnection, context: Context, endpoint: str, model: str) -> bool:
    """Tell whether some wanted request has an answer; the table `answered` then says which, and where."""
    _make_answered(engine)
    _looked(lambda: _found_sql(engine, context, endpoint, model, ""))
    return bool(engine.execute("SELECT 1 FROM answered LIMIT 1").fetchall())


def _make_answered(engine: duckdb.DuckDBPyConnection) -> None:
    engine.execute("CREATE TEMP TABLE answered (request VARCHAR, answered_as VARCHAR, file INTEGER)")


def _found(engine: duckdb.DuckDBPyConnection, context: Context, endpoint: str, model: str, submission_id: str) -> int:
    """Write the rows that were answered before, as rows of a submission; return their number."""
    target = context.home.found(submission_id)
    _make_answered(engine)

    def write() -> int:
        return _written(engine, _found_sql(engine, context, endpoint, model, submission_id), target, submission_id)

    return _looked(write, target)


def _looked(look: Callable[[], Found], target: Path | None = None) -> Found:
    """Return what a look at earlier answers returns, repeated where their files go meanwhile; it writes `target`."""
    for left in range(LOOKS - 1, -1, -1):
        try:
            return look()
        except (duckdb.IOException, duckdb.InvalidInputException) as error:
            if disk_is_full(error) or (target is not None and str(target) in str(error)):
                raise
            if not left:
                raise LedgerError(
                    f"Earlier answers could not be read ({str(error).splitlines()[0]}), so nothing was sent. "
                    "Without reuse := 'requests' they are not needed."
                ) from error
    raise AssertionError("the last look returns or raises")


def _found_sql(
    engine: duckdb.DuckDBPyConnection, context: Context, endpoint: str, model: str, submission_id: str
) -> str:
    """Return the SELECT of one answer per wanted row that has one; only where the answers lie is held in memory."""
    engine.execute("DELETE FROM answered")
    selects = []

    def wanted(job: Job) -> bool:
        """Tell whether to look at a job's results: none are brought from a store that answer nothing."""
        return context.home.store is None or is_wanted(engine, context, job)

    for number, (file, select) in enumerate(answered_sql(context, endpoint, model, wanted)):
        ((added,),) = engine.execute(
            f"INSERT INTO answered SELECT DISTINCT ON (request) request, answered_as, {number} FROM ({select}) "
            "WHERE request IN (SELECT request FROM wanted) AND request NOT IN (SELECT request FROM answered)"
        ).fetchall()
        if added:
            selects.append(
                template("found_results").substitute(
                    submission_id=literal(submission_id), results=kept_rows([file]), file=number
                )
            )
    return " UNION ALL ".join(f"({select})" for select in selects)


def _written(engine: duckdb.DuckDBPyConnection, select: str, target: Path, submission_id: str) -> int:
    """Write the rows of a SELECT as Parquet, where there are any; return their number."""
    if not select:
        return 0
    options = f"{PARQUET}, {option({'submission': submission_id})}"
    ((count,),) = engine.execute(f"COPY ({select}) TO {literal(target)} ({options})").fetchall()
    target.chmod(0o600)
    if not count:
        target.unlink()
    return int(count)
