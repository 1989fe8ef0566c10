"""The names in our own SQL: they mean DuckDB's functions and types, whatever the caller has named so.

A plain name of a function means the caller's macro, where there is one of that name, and so does an operator: `||`,
`[…]` and `{…}` are functions too. What the caller's connection runs is written without such operators, in calls of
functions, and `qualified` says of each that DuckDB's is meant. Comparisons, CASE, IN, casts, coalesce and COLLATE
cannot be redefined, nor can types other than JSON, which comes with an extension.
"""

from __future__ import annotations

import re
from functools import lru_cache

#: Where DuckDB's functions live, and ours that are made by create_function; no database can be attached by that name.
OWN = "system.main."
#: The type, as both DuckDB 1.5 and 2 take it.
JSON = '"system".main."JSON"'

#: What touches its bracket as a function does, and is none.
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
    """Return SQL of ours with every function, and the type JSON, named in full.

    A name that touches its bracket is a function's, and JSON in capitals is the type. Texts, comments, other names in
    quotes and `$placeholders` stay as they are, and so does what is named in full.
    """
    return _TOKENS.sub(_named, sql)


def call(function: str, *arguments: str) -> str:
    """Return a call of a function, or of an operator by its sign, as `qualified` takes it."""
    name = function if function.isidentifier() else f'"{function}"'
    return f"{name}({', '.join(arguments)})"


def _named(token: re.Match[str]) -> str:
    text = token[0]
    if token.lastgroup == "json":
        return JSON
    if token.lastgroup == "function" and text.lower() not in _NO_FUNCTIONS:
        return OWN + text
    return text
