"""The echo: from a job's input files to its output and error files, all in DuckDB."""

from __future__ import annotations

import json
import mmap
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import duckdb

from duckdb_mistral.emulator.examples import example_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Echo:
    """The SQL that answers an endpoint's requests, and the paths of JSON schemas in their bodies."""

    file: str
    schemas: tuple[str, ...] = ()


ECHOES = {
    "/v1/chat/completions": Echo("chat.sql", ("$.response_format.json_schema.schema",)),
    "/v1/fim/completions": Echo("fim.sql"),
    "/v1/embeddings": Echo("embeddings.sql"),
    "/v1/moderations": Echo("moderations.sql"),
    "/v1/chat/moderations": Echo("chat_moderations.sql"),
    "/v1/classifications": Echo("classifications.sql"),
    "/v1/chat/classifications": Echo("chat_classifications.sql"),
    "/v1/ocr": Echo(
        "ocr.sql",
        ("$.document_annotation_format.json_schema.schema", "$.bbox_annotation_format.json_schema.schema"),
    ),
    "/v1/conversations": Echo("conversations.sql", ("$.completion_args.response_format.json_schema.schema",)),
    "/v1/audio/transcriptions": Echo("transcriptions.sql"),
}


class BadInputError(Exception):
    """An input file has a line that is not a request."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """How many requests there were, and how many succeeded or failed."""

    total: int
    succeeded: int
    failed: int


def answer(
    inputs: Sequence[Path],
    *,
    endpoint: str,
    model: str,
    created: int,
    output: Path,
    errors: Path,
    most: int | None = None,
) -> Answered:
    """Write the answers to `output` and the refusals to `errors`, in no order that a client may rely on.

    If `most` is given, only the first `most` requests are answered.
    """
    echo = ECHOES[endpoint]
    limit = "" if most is None else f"LIMIT {most}"
    with _engine(output.parent) as engine, _bad_input_told(inputs):
        engine.execute(_sql("macros.sql"))
        engine.execute(f"CREATE TEMP VIEW requests AS FROM {_read(inputs)} {limit}")
        _make_formats(engine, echo.schemas if any(map(_has_schema, inputs)) else ())
        select = _sql(echo.file).replace("$created", str(created)).replace("$model", _quoted(model))
        engine.execute(f"CREATE TEMP VIEW echo AS {select}")
        engine.execute(f"CREATE TEMP TABLE results AS {_sql('result.sql')}")
        succeeded = _write(engine, output, "status = 200")
        failed = _write(engine, errors, "status <> 200")
        total = engine.execute("SELECT count(*) FROM results").fetchone()
    return Answered(total=int(total[0]) if total else 0, succeeded=succeeded, failed=failed)


def count_requests(inputs: Sequence[Path]) -> int:
    """Return how many requests the input files hold; raise BadInputError if a line is not a request."""
    with _engine(inputs[0].parent) as engine, _bad_input_told(inputs):
        counted = engine.execute(f"SELECT count(body) FROM {_read(inputs)}").fetchone()
    return int(counted[0]) if counted else 0


def _write(engine: duckdb.DuckDBPyConnection, target: Path, condition: str) -> int:
    """Write the answers that meet a condition as result lines; return how many.

    The lines are assembled as text: their parts are JSON already, which COPY … (FORMAT json) would parse again.
    """
    counted = engine.execute(
        f"""COPY (
          SELECT concat(
            '{{"id":"batch-', md5(concat(custom_id, rowid)),
            '","custom_id":', coalesce(to_json(custom_id), 'null'),
            ',"response":{{"status_code":', status, ',"body":', body, '}},"error":null}}'
          )
          FROM results WHERE {condition}
          ORDER BY hash(rowid)
        ) TO {_quoted(str(target))} (FORMAT csv, HEADER false, QUOTE '', ESCAPE '', DELIMITER '\x01')"""
    ).fetchone()
    return int(counted[0]) if counted else 0


def _make_formats(engine: duckdb.DuckDBPyConnection, paths: Sequence[str]) -> None:
    """Make one example for each of the few JSON schemas that the requests have at `paths`."""
    engine.execute("CREATE TEMP TABLE formats (schema VARCHAR, example VARCHAR)")
    for path in paths:
        schemas = engine.execute(
            f"SELECT DISTINCT CAST(body->'{path}' AS VARCHAR) AS schema FROM requests "
            "WHERE schema IS NOT NULL AND schema NOT IN (SELECT schema FROM formats)"
        ).fetchall()
        for (schema,) in schemas:
            engine.execute("INSERT INTO formats VALUES (?, ?)", [schema, json.dumps(example_of(json.loads(schema)))])


def _has_schema(path: Path) -> bool:
    """Tell whether a file may have a request with a JSON schema."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"json_schema") >= 0


def _read(inputs: Sequence[Path]) -> str:
    """Return a SELECT of the requests; it fails on a line without a body."""
    files = ", ".join(_quoted(str(path)) for path in inputs)
    return (
        "(SELECT custom_id, CASE WHEN starts_with(body, '{') THEN body "
        "ELSE error('The request ' || coalesce(custom_id, '') || ' has no body that is an object.') END AS body "
        f"FROM read_json([{files}], format = 'newline_delimited', columns = {{custom_id: 'VARCHAR', body: 'JSON'}}, "
        "maximum_object_size = 67108864))"
    )


def _sql(name: str) -> str:
    return (resources.files("duckdb_mistral.emulator") / name).read_text(encoding="utf-8")


@contextmanager
def _bad_input_told(inputs: Sequence[Path]) -> Iterator[None]:
    """Report what DuckDB says about an input file, without its path."""
    try:
        yield
    except duckdb.Error as error:
        message = str(error).splitlines()[0]
        for path in inputs:
            message = message.replace(str(path), path.stem)
        raise BadInputError(message) from error


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@contextmanager
def _engine(scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    # DuckDB thinks that `python -m` is interactive. A cursor draws no progress bar, which could fill an unread pipe.
    with (
        duckdb.connect(":memory:", config={"temp_directory": str(scratch / "spill")}) as engine,
        engine.cursor() as connection,
    ):
        yield connection
