"""From a job's result files to Parquet that can be trusted: read by DuckDB, checked against what was submitted.

Rows are joined by custom_id, never by position, and every custom_id comes out exactly once. What is kept under its
final name is whole; anything else lives in a scratch directory.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa

from duckdb_mistral.endpoints import OUTPUT_TEXTS, RESULT_FAMILIES
from duckdb_mistral.engines import own_engine
from duckdb_mistral.errors import IncompleteResultsError
from duckdb_mistral.output_types import declared, output_sql
from duckdb_mistral.quoting import literal
from duckdb_mistral.spool import read_keys
from duckdb_mistral.templates import template

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from duckdb_mistral.jobs import Job

#: The columns of mistral_batch_results and their types, in the order of the contract.
COLUMNS = {
    "custom_id": "VARCHAR",
    "outcome": "VARCHAR",
    "content": "VARCHAR",
    "output": "JSON",
    "embedding": "FLOAT[]",
    "error": "VARCHAR",
    "status_code": "INTEGER",
    "reused": "BOOLEAN",
    "finish_reason": "VARCHAR",
    "prompt_tokens": "BIGINT",
    "completion_tokens": "BIGINT",
    "total_tokens": "BIGINT",
    "model": "VARCHAR",
    "response": "JSON",
    "job_id": "VARCHAR",
    "submission_id": "VARCHAR",
}
#: Each thread holds a row group until it is full, so a row group is small; of the columns only those with few values
#: gain by a dictionary.
PARQUET = "FORMAT parquet, ROW_GROUP_SIZE 20480, ROW_GROUP_SIZE_BYTES '32MB', DICTIONARY_SIZE_LIMIT 100"
#: Raw lines are handed to DuckDB in batches of about this many bytes.
SALVAGE_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class ResultFiles:
    """A job's downloaded files; `submitted` are the input files, or None where they cannot be had."""

    answers: tuple[Path, ...]
    submitted: Path | None
    #: The declared output that the answers are held against.
    output: str | None = None


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How the rows of the files compare with what was submitted."""

    held: int
    missing: int
    unknown: int
    repeated: int

    @property
    def clean(self) -> bool:
        """Whether every custom_id is there exactly once, and nothing else."""
        return not (self.missing or self.unknown or self.repeated)


def write_results(job: Job, files: ResultFiles, target: Path, *, partial: bool) -> Tally:
    """Write one row per submitted custom_id of an ended job to the Parquet file `target`.

    Raises IncompleteResultsError where the files hold fewer rows than the job's counts promise, unless `partial`;
    `target` then does not exist.
    """
    with own_engine(target.parent / "spill") as engine:
        read = target.with_suffix(".read")
        submitted = _submitted_sql(engine, job, files)
        try:
            _convert(engine, job, files, read)
            engine.execute(f"CREATE TEMP VIEW submitted AS {submitted or _ids_of(read)}")
            tally = Tally(**_row(engine, template("verify").substitute(results=literal(read))))
            promised = _promised(job, known=submitted is not None)
            if tally.held < promised and not partial:
                raise IncompleteResultsError(
                    f"The result files of job {job.job_id} hold {tally.held:,} of the {promised:,} rows that its "
                    "counts promise. Nothing was kept. Run the statement again to download them again, or read "
                    "what there is with partial := true."
                )
            if tally.clean:
                read.replace(target)
            else:
                _complete(engine, job, read, target)
            return tally
        finally:
            read.unlink(missing_ok=True)
            target.chmod(0o600) if target.exists() else None


def _convert(engine: duckdb.DuckDBPyConnection, job: Job, files: ResultFiles, target: Path) -> None:
    """Read the result files into Parquet: by DuckDB's own reader, or line by line where a line is bad."""
    quick = [template("answers").substitute(file=literal(path)) for path in files.answers]
    try:
        _copy_answers(engine, job, quick, target, files.output)
    except (duckdb.Error, UnicodeDecodeError):
        for number, path in enumerate(files.answers):
            engine.register(f"lines_{number}", pa.RecordBatchReader.from_batches(LINES, raw_lines(path)))
        slow = [template("salvaged_answers").substitute(lines=f"lines_{n}") for n in range(len(files.answers))]
        _copy_answers(engine, job, slow, target, files.output)


def _copy_answers(
    engine: duckdb.DuckDBPyConnection, job: Job, selects: list[str], target: Path, output: str | None
) -> None:
    nothing = (
        "SELECT NULL::VARCHAR AS custom_id, NULL::INTEGER AS status_code, NULL::JSON AS body, "
        "NULL::JSON AS error, NULL::VARCHAR AS problem WHERE false"
    )
    answers = " UNION ALL ".join(f"({select})" for select in selects or [nothing])
    family = RESULT_FAMILIES.get(job.endpoint, "other")
    text = OUTPUT_TEXTS.get(job.endpoint, "content")
    results = template("judged").substitute(
        _constants(job),
        read=template(f"{family}_results").substitute(),
        output=output_sql(text, None if output is None else declared(output)),
        declared="false" if output is None else f"{text} IS NOT NULL",
    )
    _copy(engine, f"WITH answers AS ({answers}) FROM ({results})", target)


def _complete(engine: duckdb.DuckDBPyConnection, job: Job, read: Path, target: Path) -> None:
    unfinished = target.with_suffix(".unfinished")
    reason = f"no result: the job ended {job.status}"
    if job.report is not None and job.report.errors:
        reason += f" ({'; '.join(message for message, _ in job.report.errors)})"
    complete = template("complete").substitute(
        _constants(job), results=literal(read), reason=literal(job.message or reason)
    )
    try:
        _copy(engine, complete, unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _copy(engine: duckdb.DuckDBPyConnection, select: str, target: Path) -> None:
    columns = ", ".join(f"{name}::{kind} AS {name}" for name, kind in COLUMNS.items())
    engine.execute(f"COPY (SELECT {columns} FROM ({select})) TO {literal(target)} ({PARQUET})")


def _constants(job: Job) -> dict[str, str]:
    return {
        "model": literal(job.model or None),
        "job_id": literal(job.job_id),
        "submission_id": literal(job.submission_id),
    }


def _submitted_sql(engine: duckdb.DuckDBPyConnection, job: Job, files: ResultFiles) -> str | None:
    """Return a SELECT of the submitted custom_ids, or None where they cannot be had."""
    if files.submitted is None:
        return None
    keys = read_keys(files.submitted)
    if keys is not None and len(keys) == job.request_count:
        engine.register("submitted_keys", keys)
        return "SELECT custom_id FROM submitted_keys"
    return (
        f"SELECT custom_id FROM read_json({literal(files.submitted)}, format = 'newline_delimited', "
        "columns = {custom_id: 'VARCHAR'}, maximum_object_size = 536870912)"
    )


def _ids_of(read: Path) -> str:
    return f"SELECT DISTINCT custom_id FROM read_parquet({literal(read)}) WHERE custom_id IS NOT NULL"


def _promised(job: Job, *, known: bool) -> int:
    """Return how many rows the job's counts say that its files hold."""
    report = job.report
    if report is None:
        return 0
    counted = max(report.completed_requests, report.succeeded_requests + report.failed_requests)
    if not counted and report.status == "SUCCESS" and known:
        return job.request_count
    return min(counted, job.request_count) if known else counted


def _row(engine: duckdb.DuckDBPyConnection, select: str) -> dict[str, Any]:
    result = engine.execute(select)
    names = [column[0] for column in result.description or ()]
    return dict(zip(names, result.fetchone() or (), strict=True))


LINES = pa.schema([("line", pa.string()), ("start", pa.int64())])


def raw_lines(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield a file's lines, cut at newline bytes alone, with the byte each starts at.

    A line that is not UTF-8 comes with its bad bytes replaced, and a byte order mark is left out.
    """
    if not path.stat().st_size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = 3 if data[:3] == b"\xef\xbb\xbf" else 0
        while start < len(data):
            end = data.find(b"\n", min(start + SALVAGE_BYTES, len(data)))
            end = len(data) if end < 0 else end + 1
            yield _batch(data[start:end], start)
            start = end


def _batch(block: bytes, start: int) -> pa.RecordBatch:
    """Return the lines of a block, each with the newline that ends it; no line is handled by itself."""
    starts = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n")) + 1
    bounds = np.unique(np.concatenate(([0], starts, [len(block)])))
    try:
        block.decode()
        buffers = [None, pa.py_buffer(bounds.astype(np.int32)), pa.py_buffer(block)]
        lines = pa.StringArray.from_buffers(len(bounds) - 1, buffers[1], buffers[2])
    except UnicodeDecodeError:
        pairs = zip(bounds[:-1], bounds[1:], strict=True)
        lines = pa.array([block[a:b].decode(errors="replace") for a, b in pairs], pa.string())
    return pa.record_batch([lines, pa.array(bounds[:-1] + start, pa.int64())], schema=LINES)
