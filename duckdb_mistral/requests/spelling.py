"""Names that look like a misspelt field or column."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from duckdb_mistral.api.endpoints import Endpoint

#: A column whose name is at least this similar to a field's counts as a misspelling of it.
NEAR = 0.85
#: Stricter, so that service_time is no misspelt service_tier, and n_tokens no misspelt min_tokens.
NEARER = 0.93
#: Names shorter than this are similar to too many others.
SHORTEST_NEAR = 6


def misspelt(endpoint: Endpoint, name: str, others: Iterable[str] = ()) -> str | None:
    """Return the field that a name was probably meant to be; for newer fields, whose names resemble data, be strict."""
    fields = [field for field in endpoint.option_fields if field not in endpoint.added]
    newer = [field for field in endpoint.option_fields if field in endpoint.added and field[0] == name[:1]]
    return nearest(name, [*others, *fields]) or nearest(name, newer, near=NEARER)


def nearest(name: str, candidates: Iterable[str], shortest: int = SHORTEST_NEAR, near: float = NEAR) -> str | None:
    """Return the candidate that `name` was probably meant to be, or None."""
    import difflib

    plain = {_plain(candidate): candidate for candidate in candidates}
    if _plain(name) in plain:
        return plain[_plain(name)]
    long_enough = [candidate for candidate in plain if len(candidate) >= shortest]
    found = difflib.get_close_matches(_plain(name), long_enough, n=1, cutoff=near)
    return plain[found[0]] if found else None


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
