"""The rows of a status of very many jobs: whole columns, made by DuckDB, in place of a Python object for each job."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from duckdb_mistral.batches.track import MOVING
from duckdb_mistral.duck.engine import own_engine
from duckdb_mistral.duck.sql_files import template
from duckdb_mistral.functions.row_types import COUNT, STATUS, TEXT
from duckdb_mistral.jobs.job import Job, Step, now
from duckdb_mistral.jobs.report import JobReport, Status
from duckdb_mistral.results.strangers import counted
from duckdb_mistral.runtime.json_text import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from duckdb_mistral.batches.track import PolledAll

#: From so many jobs on, opening an engine takes less time than the objects would.
MANY = 5_000


def status_rows(known: Mapping[str, Sequence[Any]], polled: PolledAll) -> pa.StructArray:
    """Return the rows of mistral_batch_status for all jobs, in order of submission.

    `known` is what `LedgerReader.columns` returns, and `polled` what came of asking the API.
    """
    messages = known["message"]
    if polled.reasons:
        messages = [
            polled.reasons.get(submission_id, message) if step in MOVING else message
            for submission_id, step, message in zip(known["submission_id"], known["step"], messages, strict=True)
        ]
    checked = known["checked_at"]
    if polled.told:
        moment = now()
        checked = [moment if job_id in polled.told else at for job_id, at in zip(known["job_id"], checked, strict=True)]
    words = [word or _word(step) for word, step in zip(known["status"], known["step"], strict=True)]
    successes = {word: JobReport(job_id="", status=word).word == Status.SUCCESS for word in set(words)}
    numbers = {message: counted(message) for message in set(messages) if message is not None}
    table = pa.table(
        {
            **{name: pa.array(known[name], TEXT) for name in ("submission_id", "model", "endpoint", "step")},
            **{name: pa.array(known[name], COUNT) for name in _COUNTS},
            "checked_at": pa.array(checked, COUNT),
            "message": pa.array(messages, TEXT),
            "number": pa.array(map(numbers.get, messages), COUNT),
            "status": pa.array(words, TEXT),
            "succeeded": pa.array(map(successes.get, words), pa.bool_()),
            "report": pa.array(_readable(known["report"]), TEXT),
        }
    )
    with own_engine() as engine:
        engine.register("known", table)
        made = engine.sql(template("many_jobs").substitute()).to_arrow_table()
    return pa.StructArray.from_arrays([_as_field(made, field) for field in STATUS], fields=list(STATUS))


_COUNTS = ("key", "submitted_at", "part", "request_count", "created_here_at")


def _as_field(table: pa.Table, field: pa.Field) -> pa.Array:
    """Return a column as DuckDB made it with the type of a field."""
    column = pa.concat_arrays(table.column(field.name).chunks or [pa.array([], table.schema.field(field.name).type)])
    if pa.types.is_map(field.type):  # by its entries: a map of DuckDB's has each key once
        keys, values = (column.values.field(name) for name in ("key", "value"))
        return pa.MapArray.from_arrays(column.offsets, keys, values)
    return column.cast(field.type)


@cache
def _word(step: str) -> str:
    """Return the status of a job of which the API has told nothing."""
    job = Job(
        key=0,
        submission_id=None,
        part=0,
        model="",
        endpoint="",
        server_url="",
        step=Step(step),
        request_count=0,
        input_bytes=0,
        created_here_at=0,
    )
    return job.status


def _readable(reports: Sequence[str | None]) -> Sequence[str | None]:
    """Return reports as any reader of JSON takes them: an older version wrote half a surrogate pair down as it came."""
    return [text if text is None or "\\ud" not in text else json.dumps(read_json(text)) for text in reports]
