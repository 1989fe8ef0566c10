"""What each function of SQL does: one call to a use case, with rows of its answer.

Heavy modules are imported when a statement first needs them, so that registering costs next to nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from duckdb_mistral.errors import ArgumentError, MistralBatchError, SourceError
from duckdb_mistral.functions.open_spools import OpenSpool

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pyarrow as pa

    from duckdb_mistral.functions.session import Session
    from duckdb_mistral.jobs.job import Job
    from duckdb_mistral.jobs.plan import Plan

NULL_ID = "The id is NULL; give the submission_id or the job_id that mistral_batch_submit returned."


def check(_: Session, plan: str, names: list[str]) -> str | None:
    """Return what is wrong with the columns of a source, or None."""
    try:
        _checked_plan(plan, names)
    except MistralBatchError as error:
        return str(error)
    return None


def open_spool(
    session: Session, plan: str, names: list[str], connection: int, query: int, allowed: list[str] | None
) -> int:
    """Check the columns of a source and open a spool for its requests; return the spool's token.

    `allowed` are the directories that the connection may reach, None for all.
    """
    from duckdb_mistral.batches.spools import new_spool
    from duckdb_mistral.functions.reach import refuse_out_of_reach

    checked = _checked_plan(plan, names)
    context = session.context()
    refuse_out_of_reach(context.home.path, allowed)
    context.settings.required_key()
    session.spools.discard_earlier(connection, query)
    return session.spools.add(OpenSpool(context, new_spool(context), checked, connection, query))


def refuse_spools(session: Session, tokens: Iterable[int]) -> None:
    """Let the submits of spools whose rows came mixed be refused."""
    from duckdb_mistral.requests.checks import CORRELATED

    for spool in filter(None, map(session.spools.spool, tokens)):
        spool.fail(SourceError(CORRELATED))


def submit(session: Session, token: int, summary: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Check what was spooled, and submit it; return a row per job."""
    from duckdb_mistral.batches.submit import Submitter
    from duckdb_mistral.functions import row_types
    from duckdb_mistral.requests.checks import CORRELATED, check_rows, check_spooled

    opened = session.spools.take(token)
    if opened is None:
        raise SourceError(CORRELATED)
    spool = opened.spool
    try:
        check_spooled(summary, spool)
        check_rows(summary, spool)
        jobs = Submitter(opened.context).submit(opened.plan, spool, summary["fingerprint"])
        return [row_types.submit_row(job, reused) for job, reused in jobs]
    finally:
        spool.discard()


def _checked_plan(text: str, names: list[str]) -> Plan:
    """Return the plan of a statement whose source has these columns; raises an error for columns it cannot use."""
    from duckdb_mistral.api.endpoints import endpoint_of
    from duckdb_mistral.jobs.plan import Plan
    from duckdb_mistral.requests.checks import check_columns

    plan = Plan.from_json(text)
    check_columns(endpoint_of(plan.endpoint), names)
    return plan


def estimate(
    session: Session,
    plan: str,
    summary: Mapping[str, Any],
    measured: Sequence[Mapping[str, Any]] | None,
    pilot: list[str] | None,
    names: list[str],
) -> Iterable[dict[str, Any]]:
    """Return the one row of an estimate; refuse what a submit of the same arguments would refuse.

    `names` are the columns of the source.
    """
    from duckdb_mistral.api.endpoints import endpoint_of
    from duckdb_mistral.jobs.plan import Plan
    from duckdb_mistral.pricing.plans import estimate_plan
    from duckdb_mistral.requests.checks import check_rows
    from duckdb_mistral.requests.field_names import unsent_columns

    check_rows(summary)
    planned = Plan.from_json(plan)
    unsent = unsent_columns(endpoint_of(planned.endpoint), names)
    row = estimate_plan(planned, measured or [], session.settings, unsent)
    return [_piloted(session, row, planned, pilot) if pilot else row]


def _piloted(session: Session, row: dict[str, Any], plan: Plan, bodies: list[str]) -> dict[str, Any]:
    """Return an estimate with what a pilot makes of it; the same pilot again is not paid again."""
    from duckdb_mistral.pricing import pilot
    from duckdb_mistral.pricing.prices import load_prices

    settings = session.settings
    key = pilot.fingerprint(settings.server_url, plan, bodies)
    pilots = session.pilot(key, lambda: pilot.run(session.context().client, plan, bodies))
    return pilot.with_pilot(row, pilots, load_prices(settings.prices))


def cost(session: Session, identifier: str | None) -> Iterable[dict[str, Any]]:
    """Return what each job of an id has cost, from its kept results."""
    from duckdb_mistral.batches.collect import collect
    from duckdb_mistral.batches.lookup import find
    from duckdb_mistral.pricing.prices import load_prices
    from duckdb_mistral.pricing.usage import job_costs

    context = session.context()
    identifier = _required(identifier)
    collected = collect(context, identifier)
    files = [file for family in collected.families for files in family.generations for file in files]
    return job_costs(find(context, identifier), files, load_prices(session.settings.prices))


def status(session: Session, identifier: str | None) -> Iterable[dict[str, Any]] | pa.StructArray:
    """Return a row per job of an id, or of every submission; `on_trouble` hears why some may not be new."""
    from duckdb_mistral.batches.track import PolledAll, poll_all, status
    from duckdb_mistral.functions import many_jobs, row_types

    context = session.context()
    many = identifier is None and context.ledger.job_count() >= many_jobs.MANY
    polled = poll_all(context) if many else status(context, identifier)
    if polled.trouble is not None:
        session.on_trouble(polled.trouble)
    if isinstance(polled, PolledAll):
        return many_jobs.status_rows(context.ledger.columns(), polled)
    return map(row_types.status_row, polled.jobs)


def wait(session: Session, identifier: str | None, timeout: str | None, number: int | None) -> dict[str, Any]:
    """Wait for an id's jobs, or go on with the wait of that number; return a row per job, or the number.

    The text `timeout` is a number of seconds.

    Each call is short, so that DuckDB can end the statement after it.
    """
    from duckdb_mistral.functions import row_types

    if number is None:
        from duckdb_mistral.functions.arguments import timeout_seconds

        wanted, seconds = _required(identifier), timeout_seconds(timeout)
        number = session.waits.begin(lambda: _waited(session, wanted, seconds))
    jobs = session.waits.outcome(number)
    return {"wait": number} if jobs is None else {"rows": list(map(row_types.status_row, jobs))}


def _waited(session: Session, identifier: str, timeout_seconds: float | None) -> list[Job]:
    """Return the ended jobs of an id, showing how far they are meanwhile."""
    from duckdb_mistral.batches.wait import wait
    from duckdb_mistral.functions.progress import tell, watching
    from duckdb_mistral.jobs.failures import what_to_do
    from duckdb_mistral.runtime import interrupts

    context = session.context()
    showing = session.waits.showing
    while not showing.acquire(timeout=0.1):
        interrupts.check()
    try:
        with watching() as watch:
            jobs = wait(context, identifier, timeout_seconds, watch)
        tell(what_to_do(jobs))
    finally:
        showing.release()
    return jobs


def cancel(session: Session, identifier: str | None) -> Iterable[dict[str, Any]]:
    """Ask for the cancellation of an id's jobs; return a row per job."""
    from duckdb_mistral.batches.cancel import cancel
    from duckdb_mistral.functions import row_types

    return map(row_types.status_row, cancel(session.context(), _required(identifier)))


def retry(session: Session, identifier: str | None) -> Iterable[dict[str, Any]]:
    """Send again what an id's jobs left; return a row per job."""
    from duckdb_mistral.batches.retry import Retrier
    from duckdb_mistral.functions import row_types

    jobs = Retrier(session.context()).retry(_required(identifier))
    return [row_types.submit_row(job, reused) for job, reused in jobs]


def workspace_jobs(
    session: Session, status: str | None, model: str | None, metadata: str | None, created_after: int | None
) -> Iterable[dict[str, Any]]:
    """Return a row per job of the workspace; `created_after` is in microseconds, what else is given is JSON."""
    from duckdb_mistral.functions import arguments, row_types

    wanted = dict(arguments.metadata_filter(json.loads(metadata) if metadata else None))
    reports = session.context().client.jobs(
        statuses=arguments.statuses(json.loads(status) if status else None),
        model=arguments.text("model", json.loads(model) if model else None),
        created_after=created_after,
    )
    return [row_types.reported(report) for report in reports if wanted.items() <= dict(report.metadata).items()]


def models(session: Session, _: bool | None) -> Iterable[dict[str, Any]]:
    """Return a row per model that the key may use."""
    from duckdb_mistral.functions import row_types

    return map(row_types.model_row, session.context().client.models())


def _required(identifier: str | None) -> str:
    if identifier is None:
        raise ArgumentError(NULL_ID)
    return identifier
