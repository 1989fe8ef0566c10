"""Ids of the API."""

from __future__ import annotations

from duckdb_mistral.api.ids import checked_id

JOB_ID = "3f2a9c1e-0000-4000-8000-00000000000a"


def test_checked_id() -> None:
    """Any spelling of a UUID becomes the API's."""
    assert checked_id(JOB_ID.upper()) == checked_id(JOB_ID.replace("-", "")) == JOB_ID
