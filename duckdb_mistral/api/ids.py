"""Ids of the API, which are UUIDs: an id goes into a path, so nothing else may."""

from __future__ import annotations

from uuid import UUID

from duckdb_mistral.errors import ArgumentError


def checked_id(value: str) -> str:
    """Return `value` as a UUID's text; raises ArgumentError."""
    try:
        return str(UUID(value))
    except ValueError:
        raise ArgumentError(
            f"{value!r} is not an id: submission, job and file ids look like 3f2a9c1e-0000-4000-8000-000000000000."
        ) from None


def is_id(value: str) -> bool:
    """Tell whether a text is a UUID's."""
    try:
        UUID(value)
    except ValueError:
        return False
    return True
