"""Contenders: from the staging table to files that can be uploaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from benchmarks import data
from benchmarks.clock import Clock
from benchmarks.shared import settings_of, source_of

if TYPE_CHECKING:
    from pathlib import Path

    from duckdb_mistral.jobs.job import Job
    from duckdb_mistral.requests.spool import Spool, SpooledPart


def build_copy(work: Path, given: dict[str, Any]) -> Clock:
    """DuckDB's own COPY of the same lines."""
    import duckdb

    source = source_of(given)
    with duckdb.connect(given.get("database", ":memory:")) as connection:
        if "database" not in given:
            data.make_phrases(connection, given["length"])
        clock = Clock()
        with clock.step("build"):
            connection.execute(
                "COPY (SELECT custom_id, {'messages': [{'role': 'user', 'content': prompt}]} AS body "
                f"FROM {source}) TO '{work}/requests.jsonl' (FORMAT json)"
            )
    clock.figures["bytes"] = (work / "requests.jsonl").stat().st_size
    return clock


def build_spool(work: Path, given: dict[str, Any]) -> Clock:
    """Run the statement of mistral_batch_submit, up to where the first upload would begin."""
    import duckdb_mistral
    from duckdb_mistral.batches import collect  # noqa: F401  as a second call has them
    from duckdb_mistral.batches.submit import Submitter
    from duckdb_mistral.functions import arguments, statements  # noqa: F401  as a second call has them
    from duckdb_mistral.requests import checks, columns  # noqa: F401  as a second call has them

    pa.array([1])  # Arrow's first list imports pandas, where that is installed
    spooled: list[SpooledPart] = []

    def only_finished(_: Submitter, __: object, spool: Spool, *___: object) -> list[tuple[Job, bool]]:
        spooled.extend(spool.finish())
        spool.keep()
        return []

    Submitter.submit = only_finished  # type: ignore[method-assign, assignment]
    with duckdb_mistral.connect(given.get("database", ":memory:"), settings=settings_of(work, given)) as connection:
        if "database" not in given:
            data.make_phrases(connection, given["length"])
        connection.execute("FROM mistral_batch_submit('SELECT 1 AS custom_id, ''x'' AS prompt')").fetchall()
        spooled.clear()
        clock = Clock()
        with clock.step("build"):
            connection.execute("FROM mistral_batch_submit($source)", {"source": source_of(given)}).fetchall()
    clock.figures["bytes"] = sum(part.input_bytes for part in spooled)
    clock.figures["parts"] = len(spooled)
    return clock
