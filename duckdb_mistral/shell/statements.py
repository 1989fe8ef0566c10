"""The statements that give a client the functions: LOAD, and the macros."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from duckdb_mistral.duck.qualifying import JSON, OWN
from duckdb_mistral.duck.quoting import literal
from duckdb_mistral.duck.sql_files import macros
from duckdb_mistral.functions import row_types
from duckdb_mistral.functions.udfs import Function, table
from duckdb_mistral.shell.protocol import CALL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def statements(extension: Path) -> Iterator[str]:
    """Return the statements in order: the extension, its functions by name, and the macros that people call."""
    yield f"LOAD {literal(extension)};\n"
    for function in table():
        if function.row is not None:
            yield _macro(function)
    yield from map(by_macros, macros())


def by_macros(sql: str) -> str:
    """Return our SQL so that it calls the macros made here instead of the functions that it calls in Python."""
    for function in table():
        if function.row is not None:
            sql = sql.replace(f"{OWN}{function.name}(", f"temp.main.{function.name}(")
    return sql


def _macro(function: Function) -> str:
    """Return the macro that turns a call by name into a call of the extension, and its JSON back into a value."""
    names = [f"argument_{number}" for number in range(len(function.parameters))]
    given = ", ".join(f"{name}::{kind}" for name, kind in zip(names, function.parameters, strict=True))
    answer = f"{OWN}{CALL}('{function.name}', {OWN}json_array({given}))"
    if not pa.types.is_string(function.kind):
        answer = f"{answer}::{JSON}::{row_types.sql_type(function.kind)}"
    return f"CREATE OR REPLACE TEMP MACRO {function.name}({', '.join(names)}) AS {answer};\n"


def json_value(value: Any, kind: pa.DataType) -> Any:
    """Return a value of an Arrow type as JSON represents it: a map becomes an object."""
    if value is None:
        return None
    if pa.types.is_map(kind):
        return dict(value)
    if pa.types.is_struct(kind):
        return {field.name: json_value(value[field.name], field.type) for field in kind}
    if pa.types.is_list(kind):
        return [json_value(each, kind.value_type) for each in value]
    return value
