"""Values as SQL, quoted by construction.

The quotes are those of standard SQL, as in DuckDB; importing sqlglot's DuckDB dialect takes longer than planning a
small submit.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from sqlglot import exp

from duckdb_mistral.duck.qualifying import call, qualified

if TYPE_CHECKING:
    from collections.abc import Iterable


def literal(value: object) -> str:
    """Return a value as the SQL of its text, None as NULL.

    The SQL contains no NUL, because DuckDB 1.5 ends a statement there.
    """
    if value is None:
        return "NULL"
    pieces = [exp.Literal.string(piece).sql() for piece in str(value).split("\x00")]
    return pieces[0] if len(pieces) == 1 else qualified(call("concat", ", chr(0), ".join(pieces)))


@lru_cache(1000)
def identifier(name: str) -> str:
    """Return the name of a column or table as SQL, in quotes."""
    return exp.to_identifier(name, quoted=True).sql()


def literals(values: Iterable[object]) -> str:
    """Return values as the SQL of a list's members."""
    return ", ".join(map(literal, values))
