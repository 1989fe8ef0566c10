"""What jobs have used and cost, from their kept results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duckdb_mistral.engines import own_engine
from duckdb_mistral.estimate import cost
from duckdb_mistral.responses import stored_rows
from duckdb_mistral.templates import template

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from duckdb_mistral.jobs import Job
    from duckdb_mistral.prices import Prices


def job_costs(jobs: Iterable[Job], files: Sequence[Path], prices: Prices) -> Iterator[dict[str, Any]]:
    """Yield a row of mistral_batch_cost per job; costs are US dollars, in a batch."""
    known = {job.job_id: job for job in jobs if job.job_id is not None}
    for used in _used(files):
        job = known.get(used["job_id"])
        model = used.pop("answered_by") if job is None else job.model
        paid, note = cost(model, used, prices)
        yield used | {
            "part": None if job is None else job.part,
            "model": model,
            "endpoint": None if job is None else job.endpoint,
            "cost": paid,
            "prices_date": prices.date,
            "note": note,
        }


def _used(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Return what each job used."""
    with own_engine() as engine:
        result = engine.execute(template("used").substitute(rows=stored_rows(files)))
        names = [column[0] for column in result.description or ()]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
