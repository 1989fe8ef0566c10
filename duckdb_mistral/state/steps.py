"""How jobs move in a transaction of the ledger: only from where they were read, and all of a submission together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from duckdb_mistral.jobs.job import ARROWS, LOST, UNTAKEN, Step
from duckdb_mistral.state.tables import FORGOTTEN, jobs, meta, parts, submissions

if TYPE_CHECKING:
    from duckdb_mistral.jobs.job import Job


def retire(connection: sa.Connection, submission_id: str) -> None:
    """Let the same content be submitted again; drop what of a submission was never created."""
    connection.execute(submissions.update().where(submissions.c.submission_id == submission_id).values(live=False))
    its = jobs.update().where(jobs.c.submission_id == submission_id)
    connection.execute(its.where(jobs.c.step.in_([Step.PLANNED, Step.HELD])).values(step=Step.DROPPED))
    connection.execute(its.where(jobs.c.step == Step.SENDING).values(step=Step.GIVEN_UP))


def forget(connection: sa.Connection, submission_id: str, *, noted: bool) -> bool:
    """Forget a submission none of whose jobs the API has; return False, and change nothing, where it may have one.

    Where that is `noted`, the home that its requests lie under does not take the ledger for one that was lost.
    """
    its = jobs.c.submission_id == submission_id
    # Whoever is about to send one is waited for, or finds it gone.
    found = connection.execute(sa.select(jobs.c.step).where(its).order_by(jobs.c.key).with_for_update())
    if not {Step(row.step) for row in found} <= set(UNTAKEN):
        return False
    connection.execute(jobs.delete().where(its))
    connection.execute(parts.delete().where(parts.c.submission_id == submission_id))
    connection.execute(submissions.delete().where(submissions.c.submission_id == submission_id))
    if noted:
        name = f"{FORGOTTEN}{submission_id}"
        connection.execute(meta.delete().where(meta.c.name == name))
        connection.execute(meta.insert(), {"name": name, "value": ""})
    return True


def is_now(job: Job, values: dict[str, Any]) -> sa.Select[Any]:
    """Return the statement that selects a job if it has these values."""
    same = (jobs.c[name].is_not_distinct_from(value) for name, value in values.items())
    return sa.select(jobs.c.key).where(jobs.c.key == job.key, *same)


def moved(job: Job, values: dict[str, Any]) -> sa.Update:
    """Return the statement that moves a job from where it was read; raises ValueError where there is no such arrow."""
    if values["step"] not in ARROWS[job.step]:
        raise ValueError(f"no job moves from {job.step} to {values['step']}")
    # A create that was sent again since counts as another step, unless there is a job now.
    by_time = job.step in LOST and values["step"] is not Step.CREATED
    as_read = jobs.c.sent_at.is_not_distinct_from(job.sent_at) if by_time else sa.true()
    return jobs.update().where(jobs.c.key == job.key, jobs.c.step == job.step, as_read).values(**values)
