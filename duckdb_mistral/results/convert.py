"""From a job's result files to Parquet that can be trusted: read by DuckDB, checked against what was submitted.

Rows are joined by custom_id, never by position, and every custom_id comes out exactly once. What is kept under its
final name is whole; anything else lives in a scratch directory.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from duckdb_mistral.api.endpoints import OUTPUT_TEXTS, RESULT_FAMILIES
from duckdb_mistral.duck.engine import disk_is_full
from duckdb_mistral.duck.jsonl import JUST_IDS, LINES, raw_lines
from duckdb_mistral.duck.quoting import literal, literals
from duckdb_mistral.duck.sql_files import template
from duckdb_mistral.errors import IncompleteResultsError
from duckdb_mistral.requests.keys import read_keys
from duckdb_mistral.results.mending import finite, mended
from duckdb_mistral.results.output import declared, misfit_sql, parsed_sql
from duckdb_mistral.results.packed import register_floats
from duckdb_mistral.results.provenance import digests, option
from duckdb_mistral.results.reasons import is_error, told
from duckdb_mistral.results.strangers import MOST, sentence
from duckdb_mistral.state.names import read_path, unfinished_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from duckdb_mistral.jobs.job import Job

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
#: Beside them in the Parquet of a job with a large and a small file: whether the row's response is in its line.
LINED = "lined"
OUTCOMES = ("ok", "truncated", "invalid_output", "error", "missing")
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
    """A job's downloaded files; `submitted` are the requests, or their custom_ids as Parquet; None without either."""

    answers: tuple[Path, ...]
    submitted: Path | None
    #: The declared output that the answers are held against.
    output: str | None = None
    #: Why other files of the job, or the rest of these, could not be had; None where all were.
    lost: str | None = None


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How the rows of the files compare with what was submitted."""

    held: int
    missing: int
    unknown: int
    repeated: int
    #: Requests of the job of which not even the custom_id is known.
    unnamed: int = 0

    @property
    def clean(self) -> bool:
        """Whether every custom_id is there exactly once, and nothing else."""
        return not (self.missing or self.unknown or self.repeated)


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
    submitted = _submitted(engine, job, files)
    if RESULT_FAMILIES.get(job.endpoint) == "embedding":
        register_floats(engine)
    try:
        large = _large(job, files)
        if submitted is not None and large and _convert_large(engine, job, files, large, read):
            engine.execute(f"CREATE TEMP VIEW submitted AS {submitted.select}")
            same = _same_ids(engine, read, submitted)
            if same is not None and _all_differ(same):
                read.replace(target)
                return Written(tally=_all_held(len(same)), lines=large)
            engine.execute("DROP VIEW submitted")
        _convert(engine, job, files, read)
        engine.execute(f"CREATE TEMP VIEW submitted AS {_ids_of(read) if submitted is None else submitted.select}")
        same = None if submitted is None else _same_ids(engine, read, submitted)
        if same is not None:
            tally = _all_held(len(same))
        else:
            tally = Tally(**_row(engine, template("verify").substitute(results=literal(read))))
        strangers = _strangers(engine, job, read) if tally.unknown else None
        promised = _promised(job, None if submitted is None else tally.held + tally.missing)
        if tally.held < promised and not partial and not files.answers and _names_no_file(job):
            raise IncompleteResultsError(
                f"Job {job.job_id} counts {promised:,} answers but names no result file. Nothing was kept. Run the "
                "statement again in a moment, in case the API names one late. Answers that the API gives inline, "
                "with the job itself, are not read."
            )
        if tally.held < promised and not partial:
            raise IncompleteResultsError(
                f"The result files of job {job.job_id} hold {tally.held:,} of the {promised:,} rows that its "
                f"counts promise. {f'{strangers} ' if strangers else ''}Nothing was kept. Run the statement again to "
                "download them again, or read what there is with partial := true."
            )
        if tally.clean:
            read.replace(target)
        else:
            _complete(engine, job, read, target, strangers, files.lost)
        if submitted is None:
            total = max(job.request_count, 0 if job.report is None else job.report.total_requests)
            tally = replace(tally, unnamed=max(total - tally.held, 0))
        return Written(tally=tally, strangers=strangers)
    finally:
        read.unlink(missing_ok=True)
        target.chmod(0o600) if target.exists() else None


def said_of(job: Job) -> dict[str, Any]:
    """Return what a job's results say of themselves, beside the digests of the lines that are kept with them."""
    if job.job_id is not None:
        return {"job": job.job_id}
    return {"submission": job.submission_id, "part": job.part, "model": job.model}


def _large(job: Job, files: ResultFiles) -> tuple[Path, ...]:
    """Return the files whose responses stay in their lines."""
    if RESULT_FAMILIES.get(job.endpoint) != "chat":
        return ()
    return tuple(path for path in files.answers if path.stat().st_size >= LARGE_BYTES)


def _convert_large(
    engine: duckdb.DuckDBPyConnection, job: Job, files: ResultFiles, large: tuple[Path, ...], target: Path
) -> bool:
    """Read the result files into Parquet, large ones without their responses; False where that does not do."""
    rows = [
        f"SELECT *, true AS {LINED} FROM "
        f"({_judged(job, template('large_chat_results').substitute(file=literal(path)), files.output, whole=False)})"
        for path in large
    ]
    small = [template("answers").substitute(file=literal(path)) for path in files.answers if path not in large]
    if small:
        rows.append(f"SELECT *, false AS {LINED} FROM ({_judged(job, _read(job, small), files.output)})")
    try:
        _copy(
            engine,
            " UNION ALL ".join(rows),
            target,
            columns=_few_valued(job) | ({"response": "JSON", LINED: "BOOLEAN"} if small else {}),
            options=f"{PLAIN_PARQUET}, {option(said_of(job) | {'lines': digests(large)})}",
        )
    except (duckdb.Error, UnicodeDecodeError):
        return False
    return True


def _convert(engine: duckdb.DuckDBPyConnection, job: Job, files: ResultFiles, target: Path) -> None:
    """Read the result files into Parquet: by DuckDB's own reader, or line by line where a line is bad."""
    options = f"{PARQUET}, {option(said_of(job))}"
    quick = [template("answers").substitute(file=literal(path)) for path in files.answers]
    try:
        _copy(engine, _judged(job, _read(job, quick), files.output), target, options=options)
    except (duckdb.Error, UnicodeDecodeError):
        for number, path in enumerate(files.answers):
            engine.register(f"lines_{number}", pa.RecordBatchReader.from_batches(LINES, raw_lines(path)))
        slow = [
            template("salvaged_answers").substitute(lines=f"lines_{n}", mended=mended("line"))
            for n in range(len(files.answers))
        ]
        _copy(engine, _judged(job, _read(job, slow), files.output), target, options=options)


def _read(job: Job, answers: list[str]) -> str:
    """Return the SELECT of what the endpoint answers, from the SELECTs of its files."""
    nothing = (
        "SELECT NULL::VARCHAR AS custom_id, NULL::INTEGER AS status_code, NULL::JSON AS body, "
        "NULL::JSON AS error, NULL::VARCHAR AS problem WHERE false"
    )
    family = template(f"{RESULT_FAMILIES.get(job.endpoint, 'other')}_results").substitute()
    return f"WITH answers AS ({' UNION ALL '.join(f'({select})' for select in answers or [nothing])}) FROM ({family})"


def _judged(job: Job, read: str, output: str | None, *, whole: bool = True) -> str:
    """Return the SELECT of results from what was read; `whole` tells whether that has the responses' text."""
    text = OUTPUT_TEXTS.get(job.endpoint, "content")
    kind = None if output is None else declared(output)
    return template("judged").substitute(
        _constants(job),
        read=read,
        responded="body IS NOT NULL AND body <> 'null'" if whole else "answer IS NOT NULL",
        response=finite("body") if whole else "body",
        is_error=is_error("error"),
        told=told("said"),
        parsed=parsed_sql(text, kind),
        misfit=misfit_sql(text, kind),
        # An answer in chat may be a call of a tool; one that is asked for beside the content has to be there.
        declared="false" if output is None else "content IS NOT NULL" if text == "content" else "true",
    )


def _same_ids(engine: duckdb.DuckDBPyConnection, read: Path, submitted: _Submitted) -> np.ndarray[Any, Any] | None:
    """Return the hashes of the custom_ids that came back if these are exactly those submitted.

    They are if as many came back as were submitted, none of these twice, and each of these is among them.
    """
    returned = f"read_parquet({literal(read)})"
    ((came,),) = engine.execute(f"SELECT count(*) FROM {returned}").fetchall()
    if came != submitted.distinct_count(engine):
        return None
    held: np.ndarray[Any, Any] = engine.execute(
        f"SELECT hash(custom_id) AS hash FROM submitted SEMI JOIN {returned} AS returned USING (custom_id)"
    ).fetchnumpy()["hash"]
    return held if len(held) == came else None


def _all_differ(hashes: np.ndarray[Any, Any]) -> bool:
    """Tell whether no two custom_ids share the hash by which their lines are found; nearly none do, unless made to."""
    hashes.sort()
    return not (hashes[1:] == hashes[:-1]).any()


def _all_held(count: int) -> Tally:
    return Tally(held=count, missing=0, unknown=0, repeated=0)


def _strangers(engine: duckdb.DuckDBPyConnection, job: Job, read: Path) -> str:
    """Return what is told of the custom_ids that came back and were never sent."""
    select = template("strangers").substitute(results=literal(read), most=MOST)
    ((count, named),) = engine.execute(select).fetchall()
    return sentence(job.job_id, count, [(each["custom_id"], each["meant"]) for each in named])


def _complete(
    engine: duckdb.DuckDBPyConnection, job: Job, read: Path, target: Path, strangers: str | None, lost: str | None
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
        _copy(engine, complete, unfinished, options=f"{PARQUET}, {option(said_of(job))}")
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
) -> None:
    cast = ", ".join(f"{name}::{kind} AS {name}" for name, kind in columns.items())
    try:
        engine.execute(f"COPY (SELECT {cast} FROM ({select})) TO {literal(target)} ({options})")
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


@dataclass(frozen=True)
class _Submitted:
    """A SELECT of the submitted custom_ids, and how many they are where it is known that none is there twice."""

    select: str
    count: int | None = None

    def distinct_count(self, engine: duckdb.DuckDBPyConnection) -> int | None:
        """Return how many custom_ids the view `submitted` has; None where one is there twice, or NULL."""
        if self.count is not None:
            return self.count
        ((rows, ids),) = engine.execute("SELECT count(*), count(DISTINCT custom_id) FROM submitted").fetchall()
        return int(rows) if rows == ids else None


def _submitted(engine: duckdb.DuckDBPyConnection, job: Job, files: ResultFiles) -> _Submitted | None:
    """Return the submitted custom_ids, or None where they cannot be had."""
    if files.submitted is None:
        return None
    if files.submitted.suffix == ".parquet":
        return _Submitted(f"SELECT custom_id FROM read_parquet({literal(files.submitted)})")
    keys = read_keys(files.submitted)
    if keys is not None and len(keys) == job.request_count:
        engine.register("submitted_keys", keys)
        return _Submitted("SELECT custom_id FROM submitted_keys", len(keys))  # else the submit was refused
    return _Submitted(
        f"SELECT custom_id FROM read_json({literal(files.submitted)}, {JUST_IDS}, maximum_object_size = 536870912)"
    )


def _ids_of(read: Path) -> str:
    return (
        f"SELECT DISTINCT custom_id FROM read_parquet({literal(read)}) WHERE custom_id IS NOT NULL UNION ALL "
        # Of another program's requests without one each has its row; a line that is not JSON is nobody's.
        f"SELECT custom_id FROM read_parquet({literal(read)}) WHERE custom_id IS NULL AND response IS NOT NULL"
    )


def _promised(job: Job, submitted: int | None) -> int:
    """Return how many rows the job's counts say that its files hold; `submitted` are the requests that are known."""
    report = job.report
    if report is None:
        return 0
    counted = max(report.completed_requests, report.succeeded_requests + report.failed_requests)
    if submitted is None:
        return counted
    # What was not counted here may have been found before the API counted it.
    counted_here = job.request_count if job.submission_id is not None else 0
    requests = max(counted_here or report.total_requests, submitted)
    return requests if not counted and report.word == "SUCCESS" else min(counted, requests)


def _names_no_file(job: Job) -> bool:
    return job.report is None or not (job.report.output_file or job.report.error_file)


def _row(engine: duckdb.DuckDBPyConnection, select: str) -> dict[str, Any]:
    result = engine.execute(select)
    names = [column[0] for column in result.description or ()]
    return dict(zip(names, result.fetchone() or (), strict=True))
