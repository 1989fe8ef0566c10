"""What keeps an answer from being of a declared DuckDB type, as SQL that says where and why."""

from __future__ import annotations

from typing import Any

from duckdb_mistral.duck.quoting import literal
from duckdb_mistral.results.misfits import (
    NONE,
    ROOT,
    bound,
    each_misfit,
    first_of,
    it_has,
    it_is,
    item_of,
    member_of,
    of_types,
    one_of,
    required,
    shown,
    step,
    undeclared,
)

#: The JSON schema of each type that has no parts.
SCALARS: dict[str, dict[str, str]] = {
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
#: DuckDB knows dates by name (epoch, infinity), and before Christ.
_DATE_TEXT = r"^[0-9][^(]*$"


def type_misfit(value: str, kind: Any, path: str = ROOT, depth: int = 0) -> str:
    """Return the SQL of what keeps a JSON value from being of a DuckDB type; `path` is the SQL of where it stands."""
    match kind.id:
        case "struct":
            checks = [check for field, of in kind.children for check in _field_misfits(value, field, of, path, depth)]
            checks.append(undeclared(value, [field for field, _ in kind.children], path))
            return of_types(value, ["object"], path, first_of(checks))
        case "list" | "array":
            item, at = item_of(path, depth)
            checks = [each_misfit(value, depth, type_misfit(item, kind.children[0][1], at, depth + 1))]
            if kind.id == "array":
                size = kind.children[1][1]
                number = f"json_array_length({value})"
                said = f"{it_has(path)} || {number} || ' values, not {size}'"
                checks.insert(0, f"CASE WHEN {number} <> {size} THEN {said} END")
            return of_types(value, ["array"], path, first_of(checks))
        case "enum":
            return of_types(value, ["string"], path, one_of(value, kind.children[0][1], path))
    schema = SCALARS[kind.id]
    cast = f"TRY_CAST({value} AS {kind})"
    fits = f"isfinite({cast})" if kind.id in ("float", "double") else f"{cast} IS NOT NULL"
    if schema["type"] == "integer":
        fits += f" AND TRY_CAST({value} AS DOUBLE) % 1 = 0"
    if schema.get("format", "uuid") != "uuid":
        fits += f" AND regexp_matches({value}->>'$', {literal(_DATE_TEXT)})"
    wrong = f"CASE WHEN {fits} THEN NULL ELSE {it_is(path)} || {shown(value)} || {literal(f', which is no {kind}')} END"
    # Of what type the value is, is told by `wrong` as well where that is a number.
    kinds = ["number"] if schema["type"] == "integer" else [schema["type"]]
    return of_types(value, kinds, path, NONE if kind.id == "varchar" else wrong)


def _field_misfits(value: str, name: str, kind: Any, path: str, depth: int) -> list[str]:
    """Return what is wrong with a field of a STRUCT, which has to be there, and may be null."""
    member, at = member_of(value, name), step(path, name)
    if kind.id not in ("struct", "list", "array"):
        misfit = type_misfit(member, kind, at, depth + 1)
    else:
        misfit = bound(member, f"value_{depth}", type_misfit(f"value_{depth}", kind, at, depth + 1))
    return [required(value, name, path), f"CASE WHEN json_type({member}) <> 'NULL' THEN {misfit} END"]
