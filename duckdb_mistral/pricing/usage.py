"""What jobs used and cost, from their kept results."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from duckdb_mistral.duck.engine import own_engine
from duckdb_mistral.duck.sql_files import template
from duckdb_mistral.pricing.estimate import cost, prices_date
from duckdb_mistral.results.responses import kept_rows, register_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from duckdb_mistral.jobs.job import Job
    from duckdb_mistral.pricing.prices import Prices

#: Columns of a job's row that are summed over the models that answered.
SUMMED = ("answers", "prompt_tokens", "completion_tokens", "total_tokens", "pages", "annotated_pages", "audio_seconds")


def job_costs(jobs: Iterable[Job], files: Sequence[Path], prices: Prices) -> Iterator[dict[str, Any]]:
    """Yield a row of mistral_batch_cost per job; costs are in US dollars, at batch price."""
    known = {job.job_id: job for job in jobs if job.job_id is not None}
    for job_id, rows in groupby(_used(files), key=itemgetter("job_id")):
        yield _row(known.get(job_id), list(rows), prices)


def _row(job: Job | None, used: Sequence[Mapping[str, Any]], prices: Prices) -> dict[str, Any]:
    """Return the row of one job from its usage of each model that answered."""
    # Refused and missing requests count for the job's model, which may have answered nothing.
    parts = [part for part in used if part["answers"]] or used[:1]
    costs = [cost(part["answered_by"], part, prices) for part in parts]
    paid = [amount for amount, _ in costs if amount is not None]
    model = parts[0]["answered_by"] if job is None else job.model
    notes = [*_answered_by(model, parts), *(note for _, note in costs if note)]
    return {name: sum(part[name] for part in used) for name in SUMMED} | {
        "submission_id": used[0]["submission_id"],
        "job_id": used[0]["job_id"],
        "part": None if job is None else job.part,
        "model": model,
        "endpoint": None if job is None else job.endpoint,
        "cost": sum(paid) if len(paid) == len(costs) else None,
        "prices_date": prices_date(dict.fromkeys(part["answered_by"] for part in parts), prices),
        "note": "; ".join(dict.fromkeys(notes)) or None,
    }


def _answered_by(model: str, parts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield which models other than the job's answered: an alias moves, and a request may name its own."""
    for part in parts:
        if part["answered_by"] != model and part["answers"]:
            came = "1 answer came" if part["answers"] == 1 else f"{part['answers']:,} answers came"
            yield f"{came} from {part['answered_by']}, not {model} as the job names, and cost what that model costs"


def _used(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Return each job's usage of each model, in the order of the jobs."""
    with own_engine() as engine:
        register_lines(engine)
        result = engine.execute(template("used").substitute(rows=kept_rows(files)))
        names = [column[0] for column in result.description or ()]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
