"""The ledger's rows, from the values that they hold and back."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from duckdb_mistral.jobs.job import Job, Step, Submission, now
from duckdb_mistral.jobs.report import JobReport
from duckdb_mistral.runtime.json_text import read_json
from duckdb_mistral.state.tables import jobs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import sqlalchemy as sa

    from duckdb_mistral.jobs.job import Part

#: What a Job is made of, in its order; the columns job_id and status stand in its report, too.
JOB_FIELDS = tuple(field.name for field in fields(Job))
JOB_COLUMNS: tuple[sa.Column[Any], ...] = tuple(jobs.c[name] for name in JOB_FIELDS)


def submission_row(submission: Submission, *, live: bool = True) -> dict[str, Any]:
    """Return a new submission as its row."""
    return asdict(submission) | {
        "live": live,
        "models": json.dumps(submission.models),
        "metadata": json.dumps(dict(submission.metadata)),
    }


def planned_rows(submission: Submission, its_parts: Iterable[Part]) -> Iterator[dict[str, Any]]:
    """Yield the row of a planned job per part and model."""
    for part in its_parts:
        for model in submission.models:
            yield {
                "submission_id": submission.submission_id,
                "part": part.part,
                "model": model,
                "endpoint": submission.endpoint,
                "server_url": submission.server_url,
                "step": Step.PLANNED,
                "request_count": part.request_count,
                "input_bytes": part.input_bytes,
                "created_here_at": submission.created_at,
            }


def restored_row(row: dict[str, Any], report: JobReport | None, *, planned: bool) -> dict[str, Any]:
    """Return the row of a planned job as what the API's job of it tells; else as `planned` still, or as dropped."""
    if report is not None:
        return row | {"step": Step.CREATED, "message": None} | reported_values(report)
    # The same keys in every row, for one statement; a NULL job_id is no job's.
    step = Step.PLANNED if planned else Step.DROPPED
    return (
        row
        | {"step": step, "message": "It had not been sent when the ledger was lost."}
        | dict.fromkeys(("job_id", "status", "report", "checked_at"))
    )


def answered_row(submission: Submission, count: int, results: str, size: int) -> dict[str, Any]:
    """Return the row that stands for what a submission found answered; no part of it is sent."""
    return {
        "submission_id": submission.submission_id,
        "part": 0,
        "model": submission.models[0],
        "endpoint": submission.endpoint,
        "server_url": submission.server_url,
        "step": Step.ANSWERED,
        "request_count": count,
        "input_bytes": 0,
        "created_here_at": submission.created_at,
        "results": results,
        "results_bytes": size,
    }


def reported_values(report: JobReport) -> dict[str, Any]:
    """Return what the API says of a job as values of its row."""
    return {
        "job_id": report.job_id,
        "status": report.status,
        "report": written_report(report),
        "checked_at": now(),
    }


def written_report(report: JobReport) -> str:
    """Return what the API says of a job as it is written down: the same text for the same report."""
    return json.dumps(vars(report))


def submission_of(row: Any) -> Submission:
    """Return the submission of a row."""
    values = dict(row)
    del values["live"]
    values["models"] = tuple(json.loads(values["models"]))
    values["metadata"] = tuple(json.loads(values["metadata"]).items())
    return Submission(**values)


def job_of(row: Any) -> Job:
    """Return the job of a row of JOB_COLUMNS."""
    values = dict(zip(JOB_FIELDS, row, strict=True))
    values["step"] = Step(values["step"])
    values["report"] = report_of(values["report"])
    return Job(**values)


def report_of(text: str | None) -> JobReport | None:
    """Return what the API has said of a job, as it was written down; None where it has said nothing."""
    if text is None:
        return None
    # An older version wrote down what it could not read back.
    told = read_json(text)
    for name in ("errors", "metadata"):
        told[name] = tuple(map(tuple, told[name]))
    told["input_files"] = tuple(told["input_files"])
    return JobReport(**told)
