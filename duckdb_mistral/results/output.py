"""Declared output: a DuckDB type, as text, becomes a strict JSON schema, and answers are held against it.

DuckDB itself parses the type, and converts the answers: a TIMESTAMP keeps the time of day that was written, whatever
its offset; a TIMESTAMPTZ is an instant. A JSON schema as text is taken too; then any valid JSON is an answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import duckdb

from duckdb_mistral.duck.quoting import literal
from duckdb_mistral.errors import ArgumentError
from duckdb_mistral.results.misfits import SCHEMA_TYPES
from duckdb_mistral.results.schema_fitting import schema_misfit
from duckdb_mistral.results.strict_json import no_json, strict_json, strict_json_as_it_is
from duckdb_mistral.results.type_fitting import SCALARS, type_misfit
from duckdb_mistral.runtime.json_text import given_json

JSON_BEGINS = r"^\s*([\[{\"0-9-]|(true|false|null)\s*$)"
_NOT_SENT = "Nothing was sent."
_ANY_JSON = (
    "Declare the fields, as in 'STRUCT(sentiment VARCHAR, score DOUBLE)'. For JSON of any form use params := "
    "{'response_format': {'type': 'json_object'}} in place of output: the column output of the results then holds it."
)
_NO_MAP = (
    "the names of an answer's fields have to be known: declare 'STRUCT(name VARCHAR, other VARCHAR)', or pairs, as in "
    "'STRUCT(pairs STRUCT(key VARCHAR, value VARCHAR)[])'."
)
#: Types that are incomplete by name alone, and what to write.
_BARE = {
    "enum": "name its values, as in 'STRUCT(mood ENUM(''happy'', ''sad''))'",
    "map": _NO_MAP[:-1],
    "struct": "name its fields, as in 'STRUCT(sentiment VARCHAR, score DOUBLE)'",
    "list": "say what it holds, as in 'STRUCT(labels VARCHAR[])'",
    "array": "say what it holds, as in 'STRUCT(labels VARCHAR[])'",
    "union": "an answer is a JSON object: declare a STRUCT, such as 'STRUCT(sentiment VARCHAR, score DOUBLE)'",
}


@dataclass(frozen=True)
class Output:
    """A declared output: `text` is what the ledger keeps, `sql_type` the type of the column `output`."""

    text: str
    sql_type: str
    response_format: dict[str, Any]
    #: The SQL of what keeps a JSON value named `parsed` from being an answer, NULL where nothing does.
    misfit: str


class UnknownTypeError(ArgumentError):
    """A declared output names a type that DuckDB does not have by itself."""

    def __init__(self, text: str, message: str) -> None:
        """Keep the `text` of the type beside what is said of it."""
        super().__init__(message)
        self.text = text


def declared(text: str) -> Output:
    """Read a DuckDB type or a JSON schema; raise ArgumentError if it cannot be answered in JSON."""
    if text.lstrip().startswith("{"):
        return _from_schema(text)
    if text.strip().lower() in _BARE:
        raise ArgumentError(f"output is {text.strip()} and no more: {_BARE[text.strip().lower()]}. {_NOT_SENT}")
    kind = _parsed(text)
    if str(kind) in ("JSON", "VARIANT"):
        raise ArgumentError(f"output is {kind}, which does not say what an answer looks like. {_ANY_JSON} {_NOT_SENT}")
    if kind.id == "map":
        raise ArgumentError(f"output is {kind}, but {_NO_MAP} {_NOT_SENT}")
    schema = _schema(kind, "output")
    if kind.id != "struct":
        raise ArgumentError(
            f"output is {kind}, but an answer is a JSON object: declare a STRUCT, such as "
            f"{literal(f'STRUCT(value {kind})')}. "
            "Nothing was sent."
        )
    # The type's own words tell apart what JSON cannot, such as DOUBLE and DECIMAL(9,2).
    return Output(str(kind), str(kind), _format("output", schema, str(kind)), type_misfit("parsed", kind))


def parsed_sql(text: str, output: Output | None) -> str:
    """Return the SQL of an answer's text as JSON; NULL if it is not JSON."""
    if output is not None:
        return strict_json(text)
    # Most answers are prose, which needs no parser: no JSON begins with a capital, and no number has a t in it.
    may_be_json = (
        f"CASE WHEN {text} >= '[' THEN true WHEN {text} >= ':' THEN false "
        f"WHEN {text} >= '-' THEN NOT contains({text}, 't') ELSE true END"
    )
    is_json = f"{may_be_json} AND json_valid({text}) AND regexp_matches({text}, {literal(JSON_BEGINS)})"
    return f"CASE WHEN {is_json} THEN {strict_json_as_it_is(text)} END"


def misfit_sql(text: str, output: Output | None) -> str:
    """Return the SQL of why an answer's text, whose JSON is `parsed`, is not what was declared."""
    if output is None:
        return "NULL::VARCHAR"
    return f"CASE WHEN parsed IS NULL THEN {no_json(text)} ELSE ({output.misfit})::VARCHAR END"


def _from_schema(text: str) -> Output:
    try:
        json.loads(text)
    except ValueError as error:
        raise ArgumentError(
            f"output begins like a JSON schema, but is not valid JSON: {error}. Nothing was sent."
        ) from None
    except RecursionError:
        pass  # given_json says so
    schema = given_json("output", text)
    kinds = schema.get("type", [])
    named = kinds if isinstance(kinds, list) else [kinds]
    if schema.get("type") == "json_schema" and "json_schema" in schema:
        response_format = schema
    elif any(not isinstance(kind, str) or kind not in SCHEMA_TYPES for kind in named):
        raise ArgumentError(
            f"output has the type {json.dumps(kinds)}, which JSON Schema does not define. For JSON of any form use "
            "params := {'response_format': {'type': 'json_object'}} in place of output. Nothing was sent."
        )
    elif "type" in schema or "$ref" in schema or "anyOf" in schema or "properties" in schema:
        response_format = _format(str(schema.get("title") or "output"), schema, None)
    else:
        raise ArgumentError("output is a JSON object, but not a JSON schema: it has no type. Nothing was sent.")
    said = response_format["json_schema"]
    misfit = schema_misfit("parsed", said.get("schema") if isinstance(said, dict) else None)
    return Output(json.dumps(schema, ensure_ascii=False), "JSON", response_format, _bindable(misfit))


def _bindable(misfit: str) -> str:
    """Return the SQL of a misfit where DuckDB takes it: no schema, however odd, keeps answers from being read."""
    try:
        with _engine() as engine:
            engine.execute(f"SELECT {misfit} FROM (SELECT NULL::JSON AS parsed)")
    except duckdb.Error:
        return "NULL"
    return misfit


def _format(name: str, schema: dict[str, Any], description: str | None) -> dict[str, Any]:
    plain = "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in name)[:64]
    told = {} if description is None else {"description": description}
    return {"type": "json_schema", "json_schema": {"name": plain, **told, "schema": schema, "strict": True}}


def _parsed(text: str) -> Any:
    """Return the type, as DuckDB reads it on a connection of our own."""
    try:
        with _engine() as engine:
            query = f"SELECT CAST(NULL AS {text}\n) AS output"
            if len(engine.extract_statements(query)) != 1:
                raise duckdb.ParserException("more than one statement")
            types = engine.sql(query).types
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        message = (
            f"output must be a DuckDB type, such as 'STRUCT(sentiment VARCHAR, score DOUBLE)', or a JSON schema, but "
            f"is {text!r} ({reason}). Nothing was sent."
        )
        if "does not exist" in reason:
            raise UnknownTypeError(text, message) from None
        raise ArgumentError(message) from None
    if len(types) != 1:
        raise ArgumentError(f"output must be one DuckDB type, but is {text!r}. Nothing was sent.")
    return types[0]


def _engine() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(":memory:", config={"enable_external_access": "false"})


def _schema(kind: Any, name: str) -> dict[str, Any]:
    """Return the JSON schema of a type; `name` is where it stands, for errors."""
    match kind.id:
        case "struct":
            fields = {field: _nullable(_schema(part, field)) for field, part in kind.children}
            return {
                "type": "object",
                "properties": fields,
                "required": list(fields),
                "additionalProperties": False,
            }
        case "list":
            return {"type": "array", "items": _schema(kind.children[0][1], name)}
        case "array":
            size = kind.children[1][1]
            items = _schema(kind.children[0][1], name)
            return {"type": "array", "items": items, "minItems": size, "maxItems": size}
        case "enum":
            return {"type": "string", "enum": list(kind.children[0][1])}
    if kind.id == "map":
        raise ArgumentError(f"output has {name} as {kind}, but {_NO_MAP} {_NOT_SENT}")
    if kind.id not in SCALARS or str(kind) == "JSON":
        raise ArgumentError(
            f"output has {name} as {kind}, which has no strict form in JSON. Use text, numbers, BOOLEAN, DATE, TIME, "
            "TIMESTAMP, UUID, ENUM, and lists and STRUCTs of them. Nothing was sent."
        )
    return dict(SCALARS[kind.id])


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """Let a field be null: every field of a STRUCT can be NULL."""
    changed: dict[str, Any] = {"type": [schema["type"], "null"]}
    if "enum" in schema:
        changed["enum"] = [*schema["enum"], None]
    return schema | changed
