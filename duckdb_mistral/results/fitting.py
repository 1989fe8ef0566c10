"""What keeps an answer from being of a declared type or schema, as SQL that says where and why.

Such an expression is NULL where the answer fits. It is of JSON that `strict_json` has let through.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from duckdb_mistral.duck.quoting import literal, literals
from duckdb_mistral.results.mending import with_whole_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

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
#: What DuckDB calls the JSON values of a schema's type, and what we call them.
_NAMES: dict[str, tuple[tuple[str, ...], str]] = {
    "object": (("OBJECT",), "an object"),
    "array": (("ARRAY",), "a list"),
    "string": (("VARCHAR",), "text"),
    "number": (("BIGINT", "UBIGINT", "DOUBLE"), "a number"),
    "integer": (("BIGINT", "UBIGINT", "DOUBLE"), "a whole number"),
    "boolean": (("BOOLEAN",), "true or false"),
    "null": (("NULL",), "null"),
}
SCHEMA_TYPES = frozenset(_NAMES)
#: What DuckDB takes for JSON besides what is: a comma before a bracket, and numbers that are none.
_LENIENT = r"(?i),\s*[}\]]|nan|inf"
_STRING = r'"(?:[^"\\]|\\.)*"'
_HALF = r"\\u[dD][89a-fA-F]"
#: DuckDB knows dates by name (epoch, infinity), and before Christ.
_DATE_TEXT = r"^[0-9][^(]*$"
#: A schema is followed so many levels down; what lies deeper is not held against it.
DEEPEST = 10
#: The path of the whole answer, and the misfit of what always fits.
_ROOT, _NONE = "''", "NULL"
_WORDS = {None: "null", True: "true", False: "false"}
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


def strict_json(text: str) -> str:
    """Return the SQL of a text as JSON; NULL where it is none, also where DuckDB would take it for some.

    Half a character, which JSON may spell and DuckDB does not read, becomes U+FFFD.
    """
    whole = f"list_transform([{with_whole_pairs(text)}], lambda whole: {strict_json_as_it_is('whole')})[1]"
    return (
        f"coalesce({strict_json_as_it_is(text)}, CASE WHEN regexp_matches({text}, {literal(_HALF)}) THEN {whole} END)"
    )


def strict_json_as_it_is(text: str) -> str:
    """Return the SQL of a text as JSON, as `strict_json`; half a character makes it none."""
    lenient = f"regexp_matches(regexp_replace({text}, {literal(_STRING)}, '', 'g'), {literal(_LENIENT)})"
    return (
        f"CASE WHEN regexp_matches({text}, {literal(_LENIENT)}) AND CASE WHEN json_valid({text}) THEN {lenient} END "
        f"THEN NULL ELSE TRY_CAST({text} AS JSON) END"
    )


def no_json(text: str) -> str:
    """Return the SQL of why a text is not what `strict_json` lets through."""
    blanks = r"E' \t\r\n'"
    return (
        f"CASE WHEN {text} IS NULL THEN 'there is none' WHEN trim({text}, {blanks}) = '' THEN 'it is empty' "
        f"WHEN json_valid({text}) THEN 'it has a comma before a bracket, or a number such as NaN, which JSON has not' "
        f"WHEN ltrim({text}, {blanks}) LIKE '```%' THEN 'it stands between ```, which is not JSON' "
        f"ELSE 'it is not valid JSON, and begins ' || to_json(left({text}, 40))::VARCHAR END"
    )


def type_misfit(value: str, kind: Any, path: str = _ROOT, depth: int = 0) -> str:
    """Return the SQL of what keeps a JSON value from being of a DuckDB type; `path` is the SQL of where it stands."""
    match kind.id:
        case "struct":
            checks = [check for field, of in kind.children for check in _field_misfits(value, field, of, path, depth)]
            checks.append(_undeclared(value, [field for field, _ in kind.children], path))
            return _of_types(value, ["object"], path, _first(checks))
        case "list" | "array":
            item, at = _item(path, depth)
            checks = [_each(value, depth, type_misfit(item, kind.children[0][1], at, depth + 1))]
            if kind.id == "array":
                size = kind.children[1][1]
                number = f"json_array_length({value})"
                said = f"{_has(path)} || {number} || ' values, not {size}'"
                checks.insert(0, f"CASE WHEN {number} <> {size} THEN {said} END")
            return _of_types(value, ["array"], path, _first(checks))
        case "enum":
            return _of_types(value, ["string"], path, _one_of(value, kind.children[0][1], path))
    schema = SCALARS[kind.id]
    cast = f"TRY_CAST({value} AS {kind})"
    fits = f"isfinite({cast})" if kind.id in ("float", "double") else f"{cast} IS NOT NULL"
    if schema["type"] == "integer":
        fits += f" AND TRY_CAST({value} AS DOUBLE) % 1 = 0"
    if schema.get("format", "uuid") != "uuid":
        fits += f" AND regexp_matches({value}->>'$', {literal(_DATE_TEXT)})"
    wrong = f"CASE WHEN {fits} THEN NULL ELSE {_is(path)} || {_shown(value)} || {literal(f', which is no {kind}')} END"
    # Of what type the value is, is told by `wrong` as well where that is a number.
    kinds = ["number"] if schema["type"] == "integer" else [schema["type"]]
    return _of_types(value, kinds, path, _NONE if kind.id == "varchar" else wrong)


def schema_misfit(value: str, schema: Any) -> str:
    """Return the SQL of what keeps a JSON value from fitting a JSON schema, as far as that is looked at.

    Types, required and undeclared properties, enums, ranges and lengths are, in all that is nested; patterns and
    formats are not.
    """
    return _schema_misfit(value, schema, _Root(schema), _ROOT, 0)


def _schema_misfit(value: str, schema: Any, root: _Root, path: str, depth: int) -> str:
    if schema is False:
        return f"{_is(path)} || 'not allowed by the schema'"
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
            checks.append(_bound(f"[{every}]", f"any_{depth}", f"CASE WHEN {fits} THEN NULL ELSE any_{depth}[1] END"))
    checks += [
        _only("object", value, _object_misfits(value, schema, root, path, depth)),
        _only("array", value, _array_misfits(value, schema, root, path, depth)),
        _only("string", value, _ranges(f"length({value}->>'$')", _LENGTHS, value, schema, path)),
        _only("number", value, _ranges(f"TRY_CAST({value} AS DOUBLE)", _RANGES, value, schema, path)),
    ]
    values = [schema["const"]] if "const" in schema else _list(schema.get("enum"))
    if values and all(each is None or isinstance(each, str | bool) or _is_number(each) for each in values):
        checks.append(_one_of(value, values, path))
    kinds = _list(schema.get("type")) or [schema.get("type")]
    if not all(isinstance(kind, str) and kind in _NAMES for kind in kinds):
        return _first(checks)
    return _of_types(value, kinds, path, _first(checks))


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
    checks = [_required(value, name, path) for name in _list(schema.get("required")) if isinstance(name, str)]
    for name, part in properties.items():
        misfit = _schema_misfit(f"value_{depth}", part, root, _step(path, name), depth + 1)
        if misfit != _NONE:
            bound = _bound(_member(value, name), f"value_{depth}", misfit)
            checks.append(f"CASE WHEN json_type({_member(value, name)}) IS NOT NULL THEN {bound} END")
    if schema.get("additionalProperties") is False and "patternProperties" not in schema:
        checks.append(_undeclared(value, list(properties), path, repeated=False))
    return checks


def _array_misfits(value: str, schema: Mapping[str, Any], root: _Root, path: str, depth: int) -> list[str]:
    checks = _ranges(f"json_array_length({value})", _SIZES, value, schema, path)
    if isinstance(schema.get("items"), Mapping) and "prefixItems" not in schema:
        item, at = _item(path, depth)
        checks.append(_each(value, depth, _schema_misfit(item, schema["items"], root, at, depth + 1)))
    return checks


def _only(kind: str, value: str, checks: Sequence[str]) -> str:
    """Return what is wrong with values of one type; others pass."""
    first = _first(checks)
    return (
        first if first == _NONE else f"CASE WHEN json_type({value}) IN ({literals(_NAMES[kind][0])}) THEN {first} END"
    )


def _ranges(
    measure: str, bounds: Mapping[str, tuple[str, str]], value: str, schema: Mapping[str, Any], path: str
) -> list[str]:
    """Return what is wrong with how large a value is, or how long."""
    found = [(name, schema.get(name)) for name in bounds]
    return [
        f"CASE WHEN {measure} {bounds[name][0]} {limit!r} THEN "
        f"{_is(path)} || {_shown(value)} || {literal(f', which is {bounds[name][1]} {limit}')} END"
        for name, limit in found
        if _is_number(limit)
    ]


def _field_misfits(value: str, name: str, kind: Any, path: str, depth: int) -> list[str]:
    """Return what is wrong with a field of a STRUCT, which has to be there, and may be null."""
    member, at = _member(value, name), _step(path, name)
    if kind.id not in ("struct", "list", "array"):
        misfit = type_misfit(member, kind, at, depth + 1)
    else:
        misfit = _bound(member, f"value_{depth}", type_misfit(f"value_{depth}", kind, at, depth + 1))
    return [_required(value, name, path), f"CASE WHEN json_type({member}) <> 'NULL' THEN {misfit} END"]


def _required(value: str, name: str, path: str) -> str:
    return f"CASE WHEN json_type({_member(value, name)}) IS NULL THEN {_is(_step(path, name))} || 'missing' END"


def _bound(value: str, name: str, misfit: str) -> str:
    """Return a misfit in which `name` stands for `value`, which is thus written, and computed, once."""
    return f"list_transform([{value}], lambda {name}: {misfit})[1]"


def _item(path: str, depth: int) -> tuple[str, str]:
    """Return the name of a list's items in SQL, and where each stands."""
    return f"item_{depth}", f"{path} || '[' || (number_{depth} - 1) || ']'"


def _each(value: str, depth: int, misfit: str) -> str:
    """Return the first of what is wrong with the items of a list."""
    if misfit == _NONE:
        return misfit
    misfits = f"list_transform(json_transform({value}, '[\"JSON\"]'), lambda item_{depth}, number_{depth}: {misfit})"
    return f"list_filter({misfits}, lambda wrong: wrong IS NOT NULL)[1]"


def _of_types(value: str, kinds: Sequence[str], path: str, then: str) -> str:
    """Return what is wrong with the type of a value, or else what `then` says."""
    wanted = literal(f", not {' or '.join(_NAMES[kind][1] for kind in kinds)}")
    words = " ".join(f"WHEN {literal(names[0])} THEN {literal(said)}" for names, said in _NAMES.values())
    found = (
        f"CASE json_type({value}) {words} WHEN 'UBIGINT' THEN 'a number' WHEN 'DOUBLE' THEN 'a number' ELSE 'null' END"
    )
    right = literals(dict.fromkeys(name for kind in kinds for name in _NAMES[kind][0]))
    whole = ""
    if "integer" in kinds and "number" not in kinds:
        is_fraction = f"json_type({value}) = 'DOUBLE' AND TRY_CAST({value} AS DOUBLE) % 1 IS DISTINCT FROM 0"
        whole = f"WHEN {is_fraction} THEN {_is(path)} || {_shown(value)} || {wanted}"
    return (
        f"CASE WHEN coalesce(json_type({value}), 'NULL') NOT IN ({right}) THEN {_is(path)} || {found} || {wanted} "
        f"{whole} ELSE {then} END"
    )


def _undeclared(value: str, names: Sequence[str], path: str, *, repeated: bool = True) -> str:
    """Return what is wrong with the keys of an object that may have `names` alone, and, where `repeated`, each once."""
    others = f"list_filter(json_keys({value}), lambda name: name NOT IN ({literals(names)}))"
    others = others if names else f"json_keys({value})"
    said = f"{_has(path)} || 'a field that was not declared, ' || to_json(left({others}[1], 60))::VARCHAR"
    twice = f" WHEN len(json_keys({value})) > {len(names)} THEN {_has(path)} || 'a field twice'" if repeated else ""
    return f"CASE WHEN len({others}) > 0 THEN {said}{twice} END"


def _one_of(value: str, values: Sequence[Any], path: str) -> str:
    """Return what is wrong with a value that has to be one of some texts, numbers, and true, false and null."""
    words = [_WORDS[each] for each in (None, True, False) if any(each is value for value in values)]
    numbers = [each for each in values if _is_number(each)]
    texts = [each for each in values if isinstance(each, str)]
    fits = [f"trim({value}::VARCHAR) IN ({literals(words)})"] if words else []
    fits += [f"json_type({value}) = 'VARCHAR' AND ({value}->>'$') IN ({literals(texts)})"] if texts else []
    are = f"json_type({value}) IN ({literals(_NAMES['number'][0])}) AND TRY_CAST({value} AS DOUBLE)"
    fits += [f"{are} IN ({', '.join(f'{number!r}::DOUBLE' for number in numbers)})"] if numbers else []
    fit = " OR ".join(f"({each})" for each in fits)
    return (
        f"CASE WHEN {fit} THEN NULL ELSE {_is(path)} || {_shown(value)} || ', which is none of the declared values' END"
    )


def _first(misfits: Sequence[str]) -> str:
    """Return the first of some misfits that there is."""
    misfits = [misfit for misfit in misfits if misfit != _NONE]
    if len(misfits) < 2:
        return misfits[0] if misfits else _NONE
    return f"coalesce({', '.join(misfits)})"


def _member(value: str, name: str) -> str:
    """Return the SQL of a member of a JSON object: by a pointer, in which any name can stand."""
    return f"({value}->{literal('/' + name.replace('~', '~0').replace('/', '~1'))})"


def _step(path: str, name: str) -> str:
    return literal(name) if path == _ROOT else f"{path} || {literal(f'.{name}')}"


def _is(path: str) -> str:
    return "'it is '" if path == _ROOT else f"{path} || ' is '"


def _has(path: str) -> str:
    return "'it has '" if path == _ROOT else f"{path} || ' has '"


def _shown(value: str) -> str:
    return f"left({value}::VARCHAR, 60)"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_number(value: Any) -> bool:
    """Tell whether a value is a number that DuckDB's DOUBLE holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < sys.float_info.max
