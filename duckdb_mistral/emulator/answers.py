"""The echo: from a job's input files to its output and error file, all in DuckDB."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

#: The endpoints that have an echo, and the SQL of it.
ECHOES = {"/v1/chat/completions": "chat.sql"}


class BadInputError(Exception):
    """An input file has a line that is no request."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """How many requests there were and what became of them."""

    total: int
    succeeded: int
    failed: int


def count_requests(inputs: Sequence[Path]) -> int:
    """Return how many requests the input files hold; raise BadInputError where a line is none."""
    with _engine(inputs[0].parent) as engine:
        try:
            row = engine.execute(f"SELECT count(*) FROM {_read(inputs)} WHERE body IS NOT NULL").fetchone()
            bad = engine.execute(f"SELECT count(*) FROM {_read(inputs)} WHERE body IS NULL").fetchone()
        except duckdb.Error as error:
            raise BadInputError(str(error).splitlines()[0]) from error
    if bad and bad[0]:
        raise BadInputError(f"{bad[0]} lines have no body")
    return int(row[0]) if row else 0


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

    Only the first `most` requests are answered, where it is given.
    """
    if endpoint not in ECHOES:
        raise BadInputError(f"this server has no echo for {endpoint}")
    limit = "" if most is None else f"LIMIT {most}"
    with _engine(output.parent) as engine:
        engine.execute(f"CREATE TEMP VIEW requests AS FROM {_read(inputs)} {limit}")
        _make_formats(engine)
        text = (resources.files("duckdb_mistral.emulator") / ECHOES[endpoint]).read_text(encoding="utf-8")
        echo = text.replace("$created", str(created)).replace("$model", _quoted(model))
        engine.execute(f"CREATE TEMP TABLE answered AS {echo}")
        succeeded = _write(engine, output, "refused IS NULL", 200)
        failed = _write(engine, errors, "refused IS NOT NULL", None)
        total = engine.execute("SELECT count(*) FROM requests").fetchone()
    return Answered(total=int(total[0]) if total else 0, succeeded=succeeded, failed=failed)


def _write(engine: duckdb.DuckDBPyConnection, target: Path, condition: str, status: int | None) -> int:
    """Write the answers that meet a condition as result lines; return how many."""
    code = "refused" if status is None else str(status)
    counted = engine.execute(
        f"""COPY (
          SELECT 'batch-' || md5(custom_id) AS id, custom_id,
            {{'status_code': {code}, 'body': body}} AS response, NULL AS error
          FROM answered WHERE {condition}
          ORDER BY hash(custom_id)
        ) TO {_quoted(str(target))} (FORMAT json)"""
    ).fetchone()
    return int(counted[0]) if counted else 0


def _make_formats(engine: duckdb.DuckDBPyConnection) -> None:
    """Make one example answer for every JSON schema that the requests ask for; schemas are few."""
    schemas = engine.execute(
        "SELECT DISTINCT CAST(body->'$.response_format.json_schema.schema' AS VARCHAR) AS schema FROM requests "
        "WHERE contains(body, 'json_schema') AND schema IS NOT NULL"
    ).fetchall()
    engine.execute("CREATE TEMP TABLE formats (schema VARCHAR, example VARCHAR)")
    for (schema,) in schemas:
        example = json.dumps(example_of(json.loads(schema)))
        engine.execute("INSERT INTO formats VALUES (?, ?)", [schema, example])


def example_of(schema: dict[str, Any], root: dict[str, Any] | None = None) -> Any:
    """Return a value that a JSON schema allows, always the same."""
    root = root or schema
    if "$ref" in schema:
        found: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return example_of(found, root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for choices in ("anyOf", "oneOf"):
        if choices in schema:
            return example_of(schema[choices][0], root)
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        kind = kind[0]
    match kind:
        case "object":
            return {name: example_of(field, root) for name, field in schema.get("properties", {}).items()}
        case "array":
            return [example_of(schema.get("items", {"type": "string"}), root)]
        case "integer":
            return int(schema.get("minimum", 1))
        case "number":
            return float(schema.get("minimum", 0.5))
        case "boolean":
            return True
        case "null":
            return None
    formats = {"date": "2026-01-31", "date-time": "2026-01-31T12:00:00Z", "time": "12:00:00"}
    return formats.get(schema.get("format", ""), "echo")


def _read(inputs: Sequence[Path]) -> str:
    files = ", ".join(_quoted(str(path)) for path in inputs)
    return (
        f"read_json([{files}], format = 'newline_delimited', columns = {{custom_id: 'VARCHAR', body: 'JSON'}}, "
        "maximum_object_size = 67108864)"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@contextmanager
def _engine(scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:", config={"temp_directory": str(scratch / "spill")}) as engine:
        yield engine
