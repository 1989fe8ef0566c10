"""Names in our own SQL: they mean DuckDB's functions and types, even if the caller has something of the same name.

A function's plain name means the caller's macro if there is one of that name. The same goes for operators: `||`, `[…]`
and `{…}` are functions too. So SQL for the caller's connection is written without such operators, as function calls,
and `qualified` makes each of them mean DuckDB's own. Comparisons, CASE, IN, casts, coalesce and COLLATE cannot be
redefined, nor can types other than JSON, which comes with an extension.
"""

from __future__ import annotations

import re
from functools import lru_cache

#: Where DuckDB's functions live, and ours made by create_function; no database can be attached under that name.
OWN = "system.main."
#: The type, in a form that both DuckDB 1.5 and 2 accept.
JSON = '"system".main."JSON"'

#: Words that stand directly before a bracket like a function, but are none.
_NO_FUNCTIONS = frozenset({"cast", "try_cast", "try", "coalesce", "exists", "struct", "map", "enum", "decimal"})
_TOKENS = re.compile(
    r"""
    (?P<text> --[^\n]* | \bMACRO\s+\w+ | (?<!\w)[eE]'(?:[^'\\]|\\.)*' | '[^']*' )
    | (?P<function> (?<![.$\w"]) (?: [A-Za-z_]\w* | "[^"]+" ) (?=\() )
    | (?P<name> "[^"]*" )
    | (?P<json> (?<![.\w]) JSON \b )
    """,
    re.VERBOSE,
)


@lru_cache(64)
def qualified(sql: str) -> str:
    """Return our SQL with every function, and the type JSON, named in full.

    A name directly before a bracket is a function's, and JSON in capitals is the type. Strings, comments, other quoted
    names and `$placeholders` stay as they are, and so do names that are already in full.
    """
    return _TOKENS.sub(_named, sql)


def call(function: str, *arguments: str) -> str:
    """Return a call of a function, or of an operator by its sign, in the form that `qualified` expects."""
    name = function if function.isidentifier() else f'"{function}"'
    return f"{name}({', '.join(arguments)})"


def _named(token: re.Match[str]) -> str:
    text = token[0]
    if token.lastgroup == "json":
        return JSON
    if token.lastgroup == "function" and text.lower() not in _NO_FUNCTIONS:
        return OWN + text
    return text
