"""The rows that the functions return: their columns as Arrow types, in the order of the contract."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from duckdb_mistral.jobs.job import Job, Step
from duckdb_mistral.jobs.report import JobReport, Status
from duckdb_mistral.results.strangers import counted

TEXT = pa.string()
COUNT = pa.int64()
TIME = pa.timestamp("us", tz="UTC")

SUBMIT = pa.struct(
    [
        ("submission_id", TEXT),
        ("job_id", TEXT),
        ("part", pa.int32()),
        ("status", TEXT),
        ("model", TEXT),
        ("endpoint", TEXT),
        ("total_requests", COUNT),
        ("input_bytes", COUNT),
        ("reused", pa.bool_()),
        ("created_at", TIME),
    ]
)

STATUS = pa.struct(
    [
        ("submission_id", TEXT),
        ("job_id", TEXT),
        ("part", pa.int32()),
        ("status", TEXT),
        ("model", TEXT),
        ("endpoint", TEXT),
        ("total_requests", COUNT),
        ("completed_requests", COUNT),
        ("succeeded_requests", COUNT),
        ("failed_requests", COUNT),
        ("progress", pa.float64()),
        ("created_at", TIME),
        ("started_at", TIME),
        ("completed_at", TIME),
        ("checked_at", TIME),
        ("errors", pa.list_(pa.struct([("message", TEXT), ("count", COUNT)]))),
        ("metadata", pa.map_(TEXT, TEXT)),
        ("output_file", TEXT),
        ("error_file", TEXT),
    ]
)

#: mistral_batch_jobs: as status, without what only the ledger knows.
WORKSPACE = pa.struct([field for field in STATUS if field.name not in ("submission_id", "part", "checked_at")])

#: mistral_batch_estimate: costs in US dollars, at batch price; `cost` is the most that it can be, and
#: `expected_cost` what a pilot makes of it.
ESTIMATE = pa.struct(
    [
        ("requests", COUNT),
        ("input_bytes", COUNT),
        ("jobs", COUNT),
        ("input_tokens", COUNT),
        ("max_output_tokens", COUNT),
        ("input_cost", pa.float64()),
        ("max_output_cost", pa.float64()),
        ("cost", pa.float64()),
        ("pilot_requests", COUNT),
        ("expected_cost", pa.float64()),
        ("tokens_from", TEXT),
        ("prices_date", pa.date32()),
        ("note", TEXT),
    ]
)

#: mistral_batch_cost: what each job used, and what that costs.
COST = pa.struct(
    [
        ("submission_id", TEXT),
        ("job_id", TEXT),
        ("part", pa.int32()),
        ("model", TEXT),
        ("endpoint", TEXT),
        ("answers", COUNT),
        ("prompt_tokens", COUNT),
        ("completion_tokens", COUNT),
        ("total_tokens", COUNT),
        ("pages", COUNT),
        ("annotated_pages", COUNT),
        ("audio_seconds", COUNT),
        ("cost", pa.float64()),
        ("prices_date", pa.date32()),
        ("note", TEXT),
    ]
)

#: mistral_models (schema BaseModelCard and FTModelCard).
MODELS = pa.struct(
    [
        ("id", TEXT),
        ("name", TEXT),
        ("description", TEXT),
        ("owned_by", TEXT),
        ("max_context_length", COUNT),
        ("capabilities", pa.list_(TEXT)),
        ("aliases", pa.list_(TEXT)),
        ("default_model_temperature", pa.float64()),
        ("deprecation", TEXT),
        ("deprecation_replacement_model", TEXT),
        ("type", TEXT),
    ]
)


def submit_row(job: Job, reused: bool) -> dict[str, Any]:
    """Return one row of mistral_batch_submit."""
    report = job.report or _answered(job)
    return {
        "submission_id": job.submission_id,
        "job_id": job.job_id,
        "part": job.part,
        "status": job.status,
        "model": job.model,
        "endpoint": job.endpoint,
        "total_requests": job.request_count,
        "input_bytes": job.input_bytes,
        "reused": reused,
        "created_at": report.created_at if report else None,
    }


def _answered(job: Job) -> JobReport | None:
    """Return the report of rows that were answered before their submission; None for any other job."""
    if job.step is not Step.ANSWERED:
        return None
    return JobReport(
        job_id="",
        status=job.status,
        completed_requests=job.request_count,
        succeeded_requests=job.request_count,
        created_at=job.created_here_at,
        completed_at=job.created_here_at,
    )


def status_row(job: Job) -> dict[str, Any]:
    """Return one row of mistral_batch_status, _wait and _cancel."""
    report = job.report or _answered(job) or JobReport(job_id="", status=job.status)
    errors = (*report.errors, *(((job.message, counted(job.message)),) if job.message else ()))
    return reported(report, total=job.request_count) | {
        "submission_id": job.submission_id,
        "job_id": job.job_id,
        "part": job.part,
        "model": job.model,
        "endpoint": job.endpoint,
        "checked_at": job.checked_at,
        "errors": _errors(errors),
    }


def reported(report: JobReport, total: int | None = None) -> dict[str, Any]:
    """Return one row of mistral_batch_jobs; `total` is our own count of the requests, where we have one."""
    total = max(report.total_requests, total or 0)
    done = min(report.completed_requests, total)
    return {
        "job_id": report.job_id,
        "status": report.status,
        "model": report.model,
        "endpoint": report.endpoint,
        "total_requests": total,
        "completed_requests": report.completed_requests,
        "succeeded_requests": report.succeeded_requests,
        "failed_requests": report.failed_requests,
        "progress": 1.0 if report.word == Status.SUCCESS else done / total if total else 0.0,
        "created_at": report.created_at,
        "started_at": report.started_at,
        "completed_at": report.completed_at,
        "errors": _errors(report.errors),
        "metadata": list(report.metadata),
        "output_file": report.output_file,
        "error_file": report.error_file,
    }


def model_row(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return one row of mistral_models from a model card; what has another type than the API's text says is NULL."""
    capabilities = card.get("capabilities")
    aliases = card.get("aliases")
    texts = ("id", "name", "description", "owned_by", "deprecation", "deprecation_replacement_model", "type")
    return {name: value if isinstance(value := card.get(name), str) else None for name in texts} | {
        "max_context_length": _count(card.get("max_context_length")),
        "default_model_temperature": _decimal(card.get("default_model_temperature")),
        "capabilities": sorted(name for name, can in capabilities.items() if can is True)
        if isinstance(capabilities, Mapping)
        else [],
        "aliases": [alias for alias in aliases if isinstance(alias, str)] if isinstance(aliases, list) else [],
    }


def _count(value: Any) -> int | None:
    """Return a whole number that a BIGINT holds; None for anything else, and for `true`, which Python takes for 1."""
    return value if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63 else None


def _decimal(value: Any) -> float | None:
    """Return a number as a DOUBLE; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        return None
    return float(value)


def sql_type(kind: pa.DataType) -> str:
    """Return DuckDB's name of an Arrow type that is used here."""
    if pa.types.is_struct(kind):
        return f"STRUCT({', '.join(f'{_quoted(field.name)} {sql_type(field.type)}' for field in kind)})"
    if pa.types.is_list(kind):
        return f"{sql_type(kind.value_type)}[]"
    if pa.types.is_map(kind):
        return f"MAP({sql_type(kind.key_type)}, {sql_type(kind.item_type)})"
    return {
        TEXT: "VARCHAR",
        pa.int8(): "TINYINT",
        COUNT: "BIGINT",
        TIME: "TIMESTAMPTZ",
        pa.int32(): "INTEGER",
        pa.float64(): "DOUBLE",
        pa.bool_(): "BOOLEAN",
        pa.date32(): "DATE",
    }[kind]


def columns(kind: pa.StructType) -> dict[str, str]:
    """Return {column: DuckDB type} of a row type."""
    return {field.name: sql_type(field.type) for field in kind}


def _errors(errors: Iterable[tuple[str, int]]) -> list[dict[str, Any]]:
    return [{"message": message, "count": count} for message, count in errors]


def _quoted(name: str) -> str:
    return f'"{name}"'
