"""From a job's result files to Parquet that can be trusted: read by DuckDB, checked against what was submitted.

Rows are joined by custom_id, never by position, and every custom_id comes out exactly once. What is kept under its
final name is whole; anything else lives in a scratch directory.
"""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from duckdb_mistral.api.endpoints import OUTPUT_TEXTS, RESULT_FAMILIES
from duckdb_mistral.duck.engine import disk_is_full
from duckdb_mistral.duck.jsonl import LINES, raw_lines
from duckdb_mistral.duck.quoting import literal, literals
from duckdb_mistral.duck.sql_files import template
from duckdb_mistral.results.columns import COLUMNS, LINED, OUTCOMES
from duckdb_mistral.results.compare import (
    Submitted,
    Tally,
    all_held,
    check_promise,
    ids_of,
    same_ids,
    strangers_of,
    submitted_ids,
    tally_of,
    view_submitted,
)
from duckdb_mistral.results.expected import ANYTHING, expectations
from duckdb_mistral.results.mending import finite, mended
from duckdb_mistral.results.output import declared, misfit_sql, parsed_sql
from duckdb_mistral.results.packed import reading_floats
from duckdb_mistral.results.provenance import digests, option
from duckdb_mistral.state.names import read_path, unfinished_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from duckdb_mistral.jobs.job import Job

#: From this size on a result file of chat answers stays as it came, and the responses in it.
LARGE_BYTES = 32 << 20
#: Each thread holds a row group until it is full, so a row group is small, in rows and in bytes: DuckDB then uses the
#: same memory for one after another, where it would return larger pieces to the system and get new ones. Of the columns
#: only those with few values gain by a dictionary.
PARQUET = (
    "FORMAT parquet, ROW_GROUP_SIZE 6144, ROW_GROUP_SIZE_BYTES '8MB', DICTIONARY_SIZE_LIMIT 100, "
    "STRING_DICTIONARY_PAGE_SIZE_LIMIT 1024"
)
#: For large files: to compress texts that their lines hold anyway would take longer than to write them.
PLAIN_PARQUET = f"{PARQUET}, CODEC uncompressed"


@dataclass(frozen=True, kw_only=True)
class ResultFiles:
    """A job's downloaded files; `submitted` are the requests, or their custom_ids alone; None without either."""

    answers: tuple[Path, ...]
    submitted: Path | None
    #: The declared output that the answers are held against.
    output: str | None = None
    #: Why other files of the job, or the rest of these, could not be had; None where all were.
    lost: str | None = None


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was made of a job's files."""

    tally: Tally
    #: What is told of answers to custom_ids that were never sent; None without any.
    strangers: str | None = None
    #: Those of its answers whose responses are not in the Parquet file, so that they have to stay beside it.
    lines: tuple[Path, ...] = ()


def write_results(
    engine: duckdb.DuckDBPyConnection, job: Job, files: ResultFiles, target: Path, *, partial: bool
) -> Written:
    """Write one row per submitted custom_id of an ended job to the Parquet file `target`, by an engine of our own.

    Raises IncompleteResultsError where the files hold fewer rows than the job's counts promise, unless `partial`,
    and OSError where the disk is full; `target` then does not exist.
    """
    read = read_path(target)
    submitted = submitted_ids(engine, job, files.submitted)
    is_packed = RESULT_FAMILIES.get(job.endpoint) == "embedding"
    try:
        with reading_floats(engine) if is_packed else nullcontext():
            return _written_large(engine, job, files, read, target, submitted) or _written(
                engine, job, files, read, target, submitted, partial=partial
            )
    finally:
        read.unlink(missing_ok=True)
        target.chmod(0o600) if target.exists() else None


def _written_large(
    engine: duckdb.DuckDBPyConnection,
    job: Job,
    files: ResultFiles,
    read: Path,
    target: Path,
    submitted: Submitted | None,
) -> Written | None:
    """Write results without the responses of large files; None where there are none, or that does not do."""
    large = _large(job, files)
    rows = None if submitted is None or not large else _convert_large(engine, job, files, large, read)
    if submitted is None or rows is None:
        return None
    view_submitted(engine, submitted.select)
    if not same_ids(engine, read, rows, submitted):
        return None
    read.replace(target)
    return Written(tally=all_held(rows), lines=large)


def _written(
    engine: duckdb.DuckDBPyConnection,
    job: Job,
    files: ResultFiles,
    read: Path,
    target: Path,
    submitted: Submitted | None,
    *,
    partial: bool,
) -> Written:
    """Write results with their responses, completed by the rows that are missing."""
    rows = _convert(engine, job, files, read)
    view_submitted(engine, ids_of(read) if submitted is None else submitted.select)
    tally = tally_of(engine, read, rows, submitted)
    strangers = strangers_of(engine, job, read) if tally.unknown else None
    if not partial:
        check_promise(job, tally, strangers, all_known=submitted is not None, has_files=bool(files.answers))
    if tally.clean:
        read.replace(target)
    else:
        _complete(engine, job, read, target, strangers, files.lost, tally.missing)
    if submitted is None:
        total = max(job.request_count, 0 if job.report is None else job.report.total_requests)
        tally = replace(tally, unnamed=max(total - tally.held, 0))
    return Written(tally=tally, strangers=strangers)


def said_of(job: Job) -> dict[str, Any]:
    """Return what a job's results say of themselves, beside the digests of the lines that are kept with them."""
    if job.job_id is not None:
        return {"job": job.job_id}
    return {"submission": job.submission_id, "part": job.part, "model": job.model}


def _said(job: Job) -> dict[str, Any]:
    """Return the same with what they were made from, by which files of several homes are told apart."""
    return said_of(job) | {"told": None if job.report is None else job.report.told}


def _large(job: Job, files: ResultFiles) -> tuple[Path, ...]:
    """Return the files whose responses stay in their lines."""
    if RESULT_FAMILIES.get(job.endpoint) != "chat":
        return ()
    return tuple(path for path in files.answers if path.stat().st_size >= LARGE_BYTES)


def _convert_large(
    engine: duckdb.DuckDBPyConnection, job: Job, files: ResultFiles, large: tuple[Path, ...], target: Path
) -> int | None:
    """Read the result files into Parquet, large ones without their responses; return the rows, None if it fails."""
    small = [path for path in files.answers if path not in large]
    for expected in expectations(job):
        rows = [
            f"SELECT *, true AS {LINED} FROM ({_judged(job, read, files, expected, whole=False)})"
            for read in _lines("large_chat_results", large, expected)
        ]
        if small:
            read = _read(job, _lines("answers", small, expected))
            rows.append(f"SELECT *, false AS {LINED} FROM ({_judged(job, read, files, expected)})")
        with suppress(duckdb.Error, UnicodeDecodeError):
            return _copy(
                engine,
                " UNION ALL ".join(rows),
                target,
                columns=_few_valued(job) | ({"response": "JSON", LINED: "BOOLEAN"} if small else {}),
                options=f"{PLAIN_PARQUET}, {option(_said(job) | {'lines': digests(large)})}",
            )
    return None


def _convert(engine: duckdb.DuckDBPyConnection, job: Job, files: ResultFiles, target: Path) -> int:
    """Read the result files into Parquet, and return the rows: by DuckDB's own reader, or a bad line by itself."""
    options = f"{PARQUET}, {option(_said(job))}"
    for expected in expectations(job):
        read = _read(job, _lines("answers", files.answers, expected))
        with suppress(duckdb.Error, UnicodeDecodeError):
            return _copy(engine, _judged(job, read, files, expected), target, options=options)
    for number, path in enumerate(files.answers):
        engine.register(f"lines_{number}", pa.RecordBatchReader.from_batches(LINES, raw_lines(path)))
    slow = [
        template("salvaged_answers").substitute(lines=f"lines_{n}", mended=mended("line"))
        for n in range(len(files.answers))
    ]
    return _copy(engine, _judged(job, _read(job, slow), files, ANYTHING), target, options=options)


def _read(job: Job, answers: list[str]) -> str:
    """Return the SELECT of what the endpoint answers, from the SELECTs of its files."""
    nothing = (
        "SELECT NULL::VARCHAR AS custom_id, NULL::INTEGER AS status_code, NULL::JSON AS body, "
        "NULL::JSON AS error, NULL::VARCHAR AS problem WHERE false"
    )
    family = template(f"{RESULT_FAMILIES.get(job.endpoint, 'other')}_results").substitute()
    return f"WITH answers AS ({' UNION ALL '.join(f'({select})' for select in answers or [nothing])}) FROM ({family})"


def _lines(name: str, paths: Iterable[Path], expected: Mapping[str, str]) -> list[str]:
    """Return the SELECTs of result files by the template `name`."""
    return [template(name).substitute(expected, file=literal(path)) for path in paths]


def _judged(job: Job, read: str, files: ResultFiles, expected: Mapping[str, str], *, whole: bool = True) -> str:
    """Return the SELECT of results from what was read; `whole` tells whether that has the responses' text."""
    text = OUTPUT_TEXTS.get(job.endpoint, "content")
    kind = None if files.output is None else declared(files.output)
    return template("judged").substitute(
        {**_constants(job), **expected},
        read=read,
        responded="body IS NOT NULL AND body <> 'null'" if whole else "answer IS NOT NULL",
        response=finite("body") if whole else "body",
        parsed=parsed_sql(text, kind),
        misfit=misfit_sql(text, kind),
        # An answer in chat may be a call of a tool; one that is asked for beside the content has to be there.
        declared="false" if kind is None else "content IS NOT NULL" if text == "content" else "true",
    )


def _complete(
    engine: duckdb.DuckDBPyConnection,
    job: Job,
    read: Path,
    target: Path,
    strangers: str | None,
    lost: str | None,
    missing: int,
) -> None:
    unfinished = unfinished_path(target)
    reason = f"no result: the job ended {job.status}" if job.ended else "no result: the workspace has no such job"
    if job.report is not None and job.report.errors:
        reason += f" ({'; '.join(message for message, _ in job.report.errors)})"
    if lost is not None:
        reason = f"no result: {lost}"
    if strangers is not None:
        reason += f". {strangers}"
    if job.report is None and job.message:
        reason = job.message
    complete = template("complete").substitute(_constants(job), results=literal(read), reason=literal(reason))
    try:
        _copy(engine, complete, unfinished, options=f"{PARQUET}, {option(_said(job) | {'missing': missing})}")
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _few_valued(job: Job) -> dict[str, str]:
    """Return the columns that large files of chat answers fill, those of few values as an ENUM: quicker to write.

    Columns left out and ENUMs alike are read back as COLUMNS has them.
    """
    columns = {name: kind for name, kind in COLUMNS.items() if name not in ("embedding", "response")}
    columns["outcome"] = _enum(OUTCOMES)
    for name, value in (("job_id", job.job_id), ("submission_id", job.submission_id)):
        if value is not None:
            columns[name] = _enum([value])
    return columns


def _enum(values: Sequence[str]) -> str:
    return f"ENUM({literals(values)})"


def _copy(
    engine: duckdb.DuckDBPyConnection,
    select: str,
    target: Path,
    *,
    columns: Mapping[str, str] = COLUMNS,
    options: str = PARQUET,
) -> int:
    """Write a SELECT's rows to a Parquet file, and return how many there are; raises OSError where the disk is full."""
    cast = ", ".join(f"{name}::{kind} AS {name}" for name, kind in columns.items())
    try:
        ((rows,),) = engine.execute(f"COPY (SELECT {cast} FROM ({select})) TO {literal(target)} ({options})").fetchall()
        return int(rows)
    except duckdb.IOException as error:
        if disk_is_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise


def _constants(job: Job) -> dict[str, str]:
    return {
        "model": literal(job.model or None),
        "job_id": literal(job.job_id),
        "submission_id": literal(job.submission_id),
    }
