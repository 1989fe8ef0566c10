"""Declared output: a DuckDB type, as text, becomes a strict JSON schema, and answers are held against it.

DuckDB itself parses the type, and converts the answers: a TIMESTAMP keeps the time of day that was written, whatever
its offset; a TIMESTAMPTZ is an instant. A JSON schema as text is taken too; then any valid JSON is an answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from duckdb_mistral.errors import ArgumentError
from duckdb_mistral.json_values import given_json
from duckdb_mistral.quoting import literal, literals

#: The JSON schema of each type that has no parts.
_SCALARS: dict[str, dict[str, str]] = {
    name: schema
    for names, schema in (
        ("tinyint smallint integer bigint utinyint usmallint uinteger ubigint", {"type": "integer"}),
        ("float double decimal", {"type": "number"}),
        ("timestamp timestamp_s timestamp_ms timestamp_ns", {"type": "string", "format": "date-time"}),
        ("varchar", {"type": "string"}),
        ("boolean", {"type": "boolean"}),
        ("date", {"type": "string", "format": "date"}),
        ("time", {"type": "string", "format": "time"}),
        ("uuid", {"type": "string", "format": "uuid"}),
    )
    for name in names.split()
} | {"timestamp with time zone": {"type": "string", "format": "date-time"}}
JSON_BEGINS = r"^\s*([\[{\"0-9-]|(true|false|null)\s*$)"
_SCHEMA_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_NOT_SENT = "Nothing was sent."
_ANY_JSON = (
    "Declare the fields, as in 'STRUCT(sentiment VARCHAR, score DOUBLE)'. For JSON of any form use params := "
    "{'response_format': {'type': 'json_object'}} in place of output: the column output of the results then holds it."
)
_NO_MAP = (
    "the names of an answer's fields have to be known: declare 'STRUCT(name VARCHAR, other VARCHAR)', or pairs, as in "
    "'STRUCT(pairs STRUCT(key VARCHAR, value VARCHAR)[])'."
)
#: Types that are none without what is in them, and what to write.
_BARE = {
    "enum": "name its values, as in 'STRUCT(mood ENUM(''happy'', ''sad''))'",
    "map": _NO_MAP[:-1],
    "struct": "name its fields, as in 'STRUCT(sentiment VARCHAR, score DOUBLE)'",
    "list": "say of what, as in 'STRUCT(labels VARCHAR[])'",
    "array": "say of what, as in 'STRUCT(labels VARCHAR[])'",
    "union": "an answer is a JSON object: declare a STRUCT, such as 'STRUCT(sentiment VARCHAR, score DOUBLE)'",
}
#: What DuckDB calls the JSON values that fit a schema's type.
_JSON_NAMES = {
    "integer": "('BIGINT', 'UBIGINT', 'DOUBLE')",
    "number": "('BIGINT', 'UBIGINT', 'DOUBLE')",
    "string": "('VARCHAR')",
    "boolean": "('BOOLEAN')",
}


@dataclass(frozen=True)
class Output:
    """A declared output: `text` is what the ledger keeps, `sql_type` the type of the column `output`."""

    text: str
    sql_type: str
    response_format: dict[str, Any]
    #: The SQL condition that a JSON value named `parsed` is an answer.
    fits: str


class UnknownTypeError(ArgumentError):
    """A declared output names a type that DuckDB does not have by itself."""

    def __init__(self, text: str, message: str) -> None:
        """Keep the `text` of the type beside what is said of it."""
        super().__init__(message)
        self.text = text


def declared(text: str) -> Output:
    """Read a DuckDB type or a JSON schema; raise ArgumentError where it cannot be answered in JSON."""
    if text.lstrip().startswith("{"):
        return _from_schema(text)
    if text.strip().lower() in _BARE:
        raise ArgumentError(
            f"output is {text.strip()} without what is in it: {_BARE[text.strip().lower()]}. {_NOT_SENT}"
        )
    kind = _parsed(text)
    if str(kind) in ("JSON", "VARIANT"):
        raise ArgumentError(f"output is {kind}, which says nothing of an answer's form. {_ANY_JSON} {_NOT_SENT}")
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
    return Output(str(kind), str(kind), _format("output", schema, str(kind)), _fits("parsed", kind))


def output_sql(text: str, output: Output | None) -> str:
    """Return the SQL of the column output, as JSON, from the SQL of an answer's text; NULL where that is none."""
    parsed = f"TRY_CAST({text} AS JSON)"
    if output is None:  # most answers are prose, which json_valid tells at its first letter; it takes NaN, though
        return f"CASE WHEN json_valid({text}) AND regexp_matches({text}, {literal(JSON_BEGINS)}) THEN {parsed} END"
    if output.fits == "true":
        return parsed
    # A list of one value names the value, so that it is parsed once.
    return f"list_transform([{parsed}], lambda parsed: CASE WHEN {output.fits} THEN parsed END)[1]"


def _from_schema(text: str) -> Output:
    try:
        json.loads(text)
    except ValueError as error:
        raise ArgumentError(f"output begins like a JSON schema, but is no JSON: {error}. Nothing was sent.") from None
    except RecursionError:
        pass  # told below
    schema = given_json("output", text)
    kinds = schema.get("type", [])
    if schema.get("type") == "json_schema" and "json_schema" in schema:
        response_format = schema
    elif any(kind not in _SCHEMA_TYPES for kind in (kinds if isinstance(kinds, list) else [kinds])):
        raise ArgumentError(
            f"output says the type {json.dumps(kinds)}, which no JSON schema has. For JSON of any form use params := "
            "{'response_format': {'type': 'json_object'}} in place of output. Nothing was sent."
        )
    elif "type" in schema or "$ref" in schema or "anyOf" in schema or "properties" in schema:
        response_format = _format(str(schema.get("title") or "output"), schema, None)
    else:
        raise ArgumentError("output is a JSON object, but no JSON schema: it says no type. Nothing was sent.")
    return Output(json.dumps(schema, ensure_ascii=False), "JSON", response_format, "true")


def _format(name: str, schema: dict[str, Any], description: str | None) -> dict[str, Any]:
    plain = "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in name)[:64]
    told = {} if description is None else {"description": description}
    return {"type": "json_schema", "json_schema": {"name": plain, **told, "schema": schema, "strict": True}}


def _parsed(text: str) -> Any:
    """Return the type, as DuckDB reads it on a connection of our own."""
    import duckdb

    try:
        with duckdb.connect(":memory:", config={"enable_external_access": "false"}) as engine:
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
    if kind.id not in _SCALARS or str(kind) == "JSON":
        raise ArgumentError(
            f"output has {name} as {kind}, which has no strict form in JSON. Use text, numbers, BOOLEAN, DATE, TIME, "
            "TIMESTAMP, UUID, ENUM, and lists and STRUCTs of them. Nothing was sent."
        )
    return dict(_SCALARS[kind.id])


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """Let a field be null: every field of a STRUCT can be NULL."""
    changed: dict[str, Any] = {"type": [schema["type"], "null"]}
    if "enum" in schema:
        changed["enum"] = [*schema["enum"], None]
    return schema | changed


def _fits(value: str, kind: Any, depth: int = 0) -> str:
    """Return the SQL condition that a JSON value is one of the type; NULL and false both mean that it is not."""
    match kind.id:
        case "struct":
            fields = [(f"({value}->{_pointer(field)})", part) for field, part in kind.children]
            checks = [f"(json_type{member} = 'NULL' OR {_fits(member, part, depth)})" for member, part in fields]
            keys = f"len(json_keys({value})) = {len(fields)}"
            return f"(json_type({value}) = 'OBJECT' AND {' AND '.join([keys, *checks])})"
        case "list" | "array":
            items = f"json_transform({value}, '[\"JSON\"]')"
            item = f"item_{depth}"
            check = _fits(item, kind.children[0][1], depth + 1)
            each = f"list_transform({items}, lambda {item}: coalesce({check}, false))"
            sized = f" AND len({items}) = {kind.children[1][1]}" if kind.id == "array" else ""
            return f"(json_type({value}) = 'ARRAY' AND coalesce(list_bool_and({each}), true){sized})"
        case "enum":
            return f"(json_type({value}) = 'VARCHAR' AND ({value}->>'$') IN ({literals(kind.children[0][1])}))"
    accepted = _JSON_NAMES[_SCALARS[kind.id]["type"]]
    whole = f" AND TRY_CAST({value} AS DOUBLE) % 1 = 0" if _SCALARS.get(kind.id, {}).get("type") == "integer" else ""
    return f"(json_type({value}) IN {accepted} AND TRY_CAST({value} AS {kind}) IS NOT NULL{whole})"


def _pointer(name: str) -> str:
    """Return a JSON pointer to a member, as an SQL literal."""
    return literal("/" + name.replace("~", "~0").replace("/", "~1"))
