"""What a client runs to have the functions: LOAD, and the macros."""

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
    """Return the statements, in their order: the extension, its functions by their names, and what people call."""
    yield f"LOAD {literal(extension)};\n"
    for function in table():
        if function.row is not None:
            yield _macro(function)
    yield from map(by_macros, macros())


def by_macros(sql: str) -> str:
    """Return SQL of ours that calls the macros made here, where in Python it would call DuckDB's own functions."""
    for function in table():
        if function.row is not None:
            sql = sql.replace(f"{OWN}{function.name}(", f"temp.main.{function.name}(")
    return sql


def _macro(function: Function) -> str:
    """Return the macro that makes a call of the extension of a call by name, and JSON what it returned again."""
    names = [f"argument_{number}" for number in range(len(function.parameters))]
    given = ", ".join(f"{name}::{kind}" for name, kind in zip(names, function.parameters, strict=True))
    answer = f"{OWN}{CALL}('{function.name}', {OWN}json_array({given}))"
    if not pa.types.is_string(function.kind):
        answer = f"{answer}::{JSON}::{row_types.sql_type(function.kind)}"
    return f"CREATE OR REPLACE TEMP MACRO {function.name}({', '.join(names)}) AS {answer};\n"


def json_value(value: Any, kind: pa.DataType) -> Any:
    """Return a value of an Arrow type as JSON has it: a map as an object."""
    if value is None:
        return None
    if pa.types.is_map(kind):
        return dict(value)
    if pa.types.is_struct(kind):
        return {field.name: json_value(value[field.name], field.type) for field in kind}
    if pa.types.is_list(kind):
        return [json_value(each, kind.value_type) for each in value]
    return value
