"""Ids of the API, which are UUIDs; they are checked because they go into URL paths."""

from __future__ import annotations

from uuid import UUID

from duckdb_mistral.errors import ArgumentError


def checked_id(value: str) -> str:
    """Return `value` as the text of a UUID; raises ArgumentError for anything else."""
    try:
        return str(UUID(value))
    except ValueError:
        raise ArgumentError(
            f"{value!r} is not an id: submission, job and file ids look like 3f2a9c1e-0000-4000-8000-000000000000."
        ) from None


def is_id(value: str) -> bool:
    """Tell whether a text is a UUID."""
    try:
        UUID(value)
    except ValueError:
        return False
    return True
