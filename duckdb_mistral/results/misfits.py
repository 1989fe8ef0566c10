"""The pieces of misfits: SQL that says where a JSON value does not fit and why, and is NULL where it does.

It is of JSON that `strict_json` has let through.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from duckdb_mistral.duck.quoting import literal, literals

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What DuckDB calls the JSON values of a schema's type, and what we call them.
NAMES: dict[str, tuple[tuple[str, ...], str]] = {
    "object": (("OBJECT",), "an object"),
    "array": (("ARRAY",), "a list"),
    "string": (("VARCHAR",), "text"),
    "number": (("BIGINT", "UBIGINT", "DOUBLE"), "a number"),
    "integer": (("BIGINT", "UBIGINT", "DOUBLE"), "a whole number"),
    "boolean": (("BOOLEAN",), "true or false"),
    "null": (("NULL",), "null"),
}
SCHEMA_TYPES = frozenset(NAMES)
#: The path of the whole answer, and the misfit of what always fits.
ROOT, NONE = "''", "NULL"
_WORDS = {None: "null", True: "true", False: "false"}


def required(value: str, name: str, path: str) -> str:
    """Return the misfit of an object without a member."""
    return f"CASE WHEN json_type({member_of(value, name)}) IS NULL THEN {it_is(step(path, name))} || 'missing' END"


def bound(value: str, name: str, misfit: str) -> str:
    """Return a misfit in which `name` stands for `value`, which is thus written, and computed, once."""
    return f"list_transform([{value}], lambda {name}: {misfit})[1]"


def item_of(path: str, depth: int) -> tuple[str, str]:
    """Return the name of a list's items in SQL, and where each stands."""
    return f"item_{depth}", f"{path} || '[' || (number_{depth} - 1) || ']'"


def each_misfit(value: str, depth: int, misfit: str) -> str:
    """Return the first of what is wrong with the items of a list."""
    if misfit == NONE:
        return misfit
    misfits = f"list_transform(json_transform({value}, '[\"JSON\"]'), lambda item_{depth}, number_{depth}: {misfit})"
    return f"list_filter({misfits}, lambda wrong: wrong IS NOT NULL)[1]"


def of_types(value: str, kinds: Sequence[str], path: str, then: str) -> str:
    """Return what is wrong with the type of a value, or else what `then` says."""
    wanted = literal(f", not {' or '.join(NAMES[kind][1] for kind in kinds)}")
    words = " ".join(f"WHEN {literal(names[0])} THEN {literal(said)}" for names, said in NAMES.values())
    found = (
        f"CASE json_type({value}) {words} WHEN 'UBIGINT' THEN 'a number' WHEN 'DOUBLE' THEN 'a number' ELSE 'null' END"
    )
    right = literals(dict.fromkeys(name for kind in kinds for name in NAMES[kind][0]))
    whole = ""
    if "integer" in kinds and "number" not in kinds:
        is_fraction = f"json_type({value}) = 'DOUBLE' AND TRY_CAST({value} AS DOUBLE) % 1 IS DISTINCT FROM 0"
        whole = f"WHEN {is_fraction} THEN {it_is(path)} || {shown(value)} || {wanted}"
    return (
        f"CASE WHEN coalesce(json_type({value}), 'NULL') NOT IN ({right}) THEN {it_is(path)} || {found} || {wanted} "
        f"{whole} ELSE {then} END"
    )


def undeclared(value: str, names: Sequence[str], path: str, *, repeated: bool = True) -> str:
    """Return what is wrong with the keys of an object that may have `names` alone, and, where `repeated`, each once."""
    others = f"list_filter(json_keys({value}), lambda name: name NOT IN ({literals(names)}))"
    others = others if names else f"json_keys({value})"
    said = f"{it_has(path)} || 'a field that was not declared, ' || to_json(left({others}[1], 60))::VARCHAR"
    twice = f" WHEN len(json_keys({value})) > {len(names)} THEN {it_has(path)} || 'a field twice'" if repeated else ""
    return f"CASE WHEN len({others}) > 0 THEN {said}{twice} END"


def one_of(value: str, values: Sequence[Any], path: str) -> str:
    """Return what is wrong with a value that has to be one of some texts, numbers, and true, false and null."""
    words = [_WORDS[each] for each in (None, True, False) if any(each is value for value in values)]
    numbers = [each for each in values if is_number(each)]
    texts = [each for each in values if isinstance(each, str)]
    fits = [f"trim({value}::VARCHAR) IN ({literals(words)})"] if words else []
    fits += [f"json_type({value}) = 'VARCHAR' AND ({value}->>'$') IN ({literals(texts)})"] if texts else []
    are = f"json_type({value}) IN ({literals(NAMES['number'][0])}) AND TRY_CAST({value} AS DOUBLE)"
    fits += [f"{are} IN ({', '.join(f'{number!r}::DOUBLE' for number in numbers)})"] if numbers else []
    fit = " OR ".join(f"({each})" for each in fits)
    said = f"{it_is(path)} || {shown(value)} || ', which is none of the declared values'"
    return f"CASE WHEN {fit} THEN NULL ELSE {said} END"


def first_of(misfits: Sequence[str]) -> str:
    """Return the first of some misfits that there is."""
    misfits = [misfit for misfit in misfits if misfit != NONE]
    if len(misfits) < 2:
        return misfits[0] if misfits else NONE
    return f"coalesce({', '.join(misfits)})"


def member_of(value: str, name: str) -> str:
    """Return the SQL of a member of a JSON object: by a pointer, in which any name can stand."""
    return f"({value}->{literal('/' + name.replace('~', '~0').replace('/', '~1'))})"


def step(path: str, name: str) -> str:
    """Return where a member stands."""
    return literal(name) if path == ROOT else f"{path} || {literal(f'.{name}')}"


def it_is(path: str) -> str:
    """Return how a misfit begins that says what a value is."""
    return "'it is '" if path == ROOT else f"{path} || ' is '"


def it_has(path: str) -> str:
    """Return how a misfit begins that says what a value has."""
    return "'it has '" if path == ROOT else f"{path} || ' has '"


def shown(value: str) -> str:
    """Return the beginning of a value, as it is written."""
    return f"left({value}::VARCHAR, 60)"


def is_number(value: Any) -> bool:
    """Tell whether a value is a number that DuckDB's DOUBLE holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < sys.float_info.max
