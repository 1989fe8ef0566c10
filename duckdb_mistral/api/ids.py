"""Ids that somebody gives, which have to be UUIDs: they go into URLs and file names."""

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
