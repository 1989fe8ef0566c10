"""What keeps an answer from fitting a declared JSON schema, as SQL that says where and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from duckdb_mistral.duck.quoting import literal, literals
from duckdb_mistral.results.misfits import (
    NAMES,
    NONE,
    ROOT,
    bound,
    each_misfit,
    first_of,
    is_number,
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

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A schema is followed so many levels down; what lies deeper is not held against it.
DEEPEST = 10
#: What a schema says of how large a value may be: how it is not to compare with the limit, and how that is said.
_RANGES = {
    "minimum": ("<", "less than"),
    "maximum": (">", "more than"),
    "exclusiveMinimum": ("<=", "not more than"),
    "exclusiveMaximum": (">=", "not less than"),
}
_LENGTHS = {"minLength": ("<", "shorter than"), "maxLength": (">", "longer than")}
_SIZES = {"minItems": ("<", "shorter than"), "maxItems": (">", "longer than")}


class _Root(NamedTuple):
    """A whole schema, and which of its parts are being looked at: one that holds itself is followed once."""

    schema: Any
    followed: frozenset[str] = frozenset()


def schema_misfit(value: str, schema: Any) -> str:
    """Return the SQL of what keeps a JSON value from fitting a JSON schema, as far as that is looked at.

    Types, required and undeclared properties, enums, ranges and lengths are, in all that is nested; patterns and
    formats are not.
    """
    return _schema_misfit(value, schema, _Root(schema), ROOT, 0)


def _schema_misfit(value: str, schema: Any, root: _Root, path: str, depth: int) -> str:
    if schema is False:
        return f"{it_is(path)} || 'not allowed by the schema'"
    if not isinstance(schema, Mapping) or depth > DEEPEST:
        return "NULL"
    checks = [_schema_misfit(value, part, root, path, depth + 1) for part in _list(schema.get("allOf"))]
    if isinstance(target := schema.get("$ref"), str):
        followed = _Root(root.schema, root.followed | {target})
        part = True if target in root.followed else _referred(target, root.schema)
        checks.append(_schema_misfit(value, part, followed, path, depth + 1))
    for name in ("anyOf", "oneOf"):
        misfits = [_schema_misfit(value, part, root, path, depth + 1) for part in _list(schema.get(name))]
        if misfits:
            every = ", ".join(f"({misfit})::VARCHAR" for misfit in misfits)
            fits = f"len(list_filter(any_{depth}, lambda wrong: wrong IS NULL)) > 0"
            checks.append(bound(f"[{every}]", f"any_{depth}", f"CASE WHEN {fits} THEN NULL ELSE any_{depth}[1] END"))
    checks += [
        _only("object", value, _object_misfits(value, schema, root, path, depth)),
        _only("array", value, _array_misfits(value, schema, root, path, depth)),
        _only("string", value, _ranges(f"length({value}->>'$')", _LENGTHS, value, schema, path)),
        _only("number", value, _ranges(f"TRY_CAST({value} AS DOUBLE)", _RANGES, value, schema, path)),
    ]
    values = [schema["const"]] if "const" in schema else _list(schema.get("enum"))
    if values and all(each is None or isinstance(each, str | bool) or is_number(each) for each in values):
        checks.append(one_of(value, values, path))
    kinds = _list(schema.get("type")) or [schema.get("type")]
    if not all(isinstance(kind, str) and kind in NAMES for kind in kinds):
        return first_of(checks)
    return of_types(value, kinds, path, first_of(checks))


def _referred(target: str, root: Any) -> Any:
    """Return the part of a schema that a $ref names; what lies elsewhere is not held against an answer."""
    found = root
    for name in target.removeprefix("#").split("/")[1:]:
        name = name.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if target.startswith("#") else None


def _object_misfits(value: str, schema: Mapping[str, Any], root: _Root, path: str, depth: int) -> list[str]:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    checks = [required(value, name, path) for name in _list(schema.get("required")) if isinstance(name, str)]
    for name, part in properties.items():
        misfit = _schema_misfit(f"value_{depth}", part, root, step(path, name), depth + 1)
        if misfit != NONE:
            once = bound(member_of(value, name), f"value_{depth}", misfit)
            checks.append(f"CASE WHEN json_type({member_of(value, name)}) IS NOT NULL THEN {once} END")
    if schema.get("additionalProperties") is False and "patternProperties" not in schema:
        checks.append(undeclared(value, list(properties), path, repeated=False))
    return checks


def _array_misfits(value: str, schema: Mapping[str, Any], root: _Root, path: str, depth: int) -> list[str]:
    checks = _ranges(f"json_array_length({value})", _SIZES, value, schema, path)
    if isinstance(schema.get("items"), Mapping) and "prefixItems" not in schema:
        item, at = item_of(path, depth)
        checks.append(each_misfit(value, depth, _schema_misfit(item, schema["items"], root, at, depth + 1)))
    return checks


def _only(kind: str, value: str, checks: Sequence[str]) -> str:
    """Return what is wrong with values of one type; others pass."""
    first = first_of(checks)
    return first if first == NONE else f"CASE WHEN json_type({value}) IN ({literals(NAMES[kind][0])}) THEN {first} END"


def _ranges(
    measure: str, bounds: Mapping[str, tuple[str, str]], value: str, schema: Mapping[str, Any], path: str
) -> list[str]:
    """Return what is wrong with how large a value is, or how long."""
    found = [(name, schema.get(name)) for name in bounds]
    return [
        f"CASE WHEN {measure} {bounds[name][0]} {limit!r} THEN "
        f"{it_is(path)} || {shown(value)} || {literal(f', which is {bounds[name][1]} {limit}')} END"
        for name, limit in found
        if is_number(limit)
    ]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
