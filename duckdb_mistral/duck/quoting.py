"""Values and names as SQL, in the quotes of standard SQL: a quote within is doubled, and nothing else is special."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duckdb_mistral.duck.qualifying import call, qualified

if TYPE_CHECKING:
    from collections.abc import Iterable


def literal(value: object) -> str:
    """Return a value as the SQL of its text, None as NULL.

    The SQL contains no NUL, because DuckDB 1.5 ends a statement there.
    """
    if value is None:
        return "NULL"
    pieces = [quoted(piece) for piece in str(value).split("\x00")]
    return pieces[0] if len(pieces) == 1 else qualified(call("concat", ", chr(0), ".join(pieces)))


def literals(values: Iterable[object]) -> str:
    """Return values as the SQL of a list's members."""
    return ", ".join(map(literal, values))


def quoted(text: str) -> str:
    """Return a text in SQL's quotes."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Return the name of a column or table as SQL, in quotes."""
    return '"' + name.replace('"', '""') + '"'
