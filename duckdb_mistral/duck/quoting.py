"""Values as SQL, quoted by construction: the quotes are those of standard SQL, which DuckDB's are."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from duckdb_mistral.duck.qualifying import call, qualified

if TYPE_CHECKING:
    from collections.abc import Iterable


def literal(value: object) -> str:
    """Return a value as the SQL of its text, None as NULL.

    DuckDB 1.5 ends a statement at a NUL, so none stands in it.
    """
    if value is None:
        return "NULL"
    pieces = [_quoted(piece, "'") for piece in str(value).split("\x00")]
    return pieces[0] if len(pieces) == 1 else qualified(call("concat", ", chr(0), ".join(pieces)))


@lru_cache(1000)
def identifier(name: str) -> str:
    """Return the name of a column or table as SQL, in quotes."""
    return _quoted(name, '"')


def literals(values: Iterable[object]) -> str:
    """Return values as the SQL of a list's members."""
    return ", ".join(map(literal, values))


def _quoted(text: str, quote: str) -> str:
    """Return a text in quotes, with those in it doubled: nothing else has a meaning between them."""
    return f"{quote}{text.replace(quote, quote * 2)}{quote}"
