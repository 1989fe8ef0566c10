"""JSON from outside: read as far as it can be; a user's values are refused if JSON cannot hold them."""

from __future__ import annotations

import json
from typing import Any

from duckdb_mistral.errors import ArgumentError


def given_json(name: str, value: Any) -> Any:
    """Return a value that JSON can hold, parsed if it is text; `name` names it in errors.

    Raises ArgumentError for text that is not JSON, for what UTF-8 or JSON cannot hold, and for too many levels.
    """
    try:
        given = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise ArgumentError(f"{name} is text, but not JSON: {value[:80]!r}. Nothing was sent.") from None
    except RecursionError:
        raise _too_deep(name) from None
    try:
        as_json(given).encode()
    except ValueError:
        raise ArgumentError(
            f"{name} holds what JSON cannot hold: NaN, an infinite number, or half of a surrogate pair. "
            "Nothing was sent."
        ) from None
    except RecursionError:
        raise _too_deep(name) from None
    return given


def as_json(value: Any) -> str:
    """Return a value as JSON; raises ValueError for a number that JSON does not have."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def read_json(text: str | bytes) -> Any:
    """Return what JSON holds; half a surrogate pair, which JSON may hold and UTF-8 may not, becomes a question mark.

    Raises ValueError where it is no JSON, or has more levels than Python can read.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("too many levels") from None
    content = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    if b"\\ud" not in content.lower() and b"\xed" not in content:  # which spares most texts to be read twice
        return found
    return json.loads(json.dumps(found, ensure_ascii=False).encode(errors="replace"))


def _too_deep(name: str) -> ArgumentError:
    return ArgumentError(f"{name} has more levels than can be read. Nothing was sent.")
