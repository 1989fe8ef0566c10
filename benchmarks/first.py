"""Contenders: the first call of a fresh process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks import by_hand, loop
from benchmarks.clock import Clock
from benchmarks.shared import KEY, sdk_at, settings_of

if TYPE_CHECKING:
    from pathlib import Path


def first_sdk(_: Path, __: dict[str, Any]) -> Clock:
    """Import the SDK, and what it imports when it is first used; DuckDB and Arrow are there."""
    import duckdb  # noqa: F401
    import pyarrow as pa  # noqa: F401

    clock = Clock()
    with clock.step("import"):
        from mistralai.client import Mistral

        with Mistral(api_key=KEY) as sdk:
            assert sdk.files
            assert sdk.batch.jobs
    return clock


def first_by_hand(work: Path, given: dict[str, Any]) -> Clock:
    """Import the SDK, write a hundred prompts with COPY, upload and create; DuckDB and Arrow are there."""
    import duckdb

    with duckdb.connect(given["database"]) as connection:
        clock = Clock()
        with clock.step("submit"), sdk_at(given["url"]) as sdk:
            for file_id in by_hand.submit(sdk, connection, "staging", work):
                loop.create(sdk, file_id)
    return clock


def first_submit(work: Path, given: dict[str, Any]) -> Clock:
    """Submit a hundred prompts with the functions registered and nothing else imported: build, upload and create."""
    import duckdb_mistral

    settings = settings_of(work, given) | {"server_url": given["url"]}
    submit = f"FROM mistral_batch_submit('staging', metadata := {{'run': '{uuid4()}'}})"  # else it is found there
    with duckdb_mistral.connect(given["database"], settings=settings) as connection:
        clock = Clock()
        with clock.step("submit"):
            connection.execute(submit).fetchall()
    return clock
