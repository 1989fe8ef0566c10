"""Contenders: the whole of the client's side, from a table of prompts to the same table with the answers joined to it.

Each does the same with a few rows before its clock starts, so that what a process does once is done. With few rows it
does it several times, and the quickest of each step counts.
"""

from __future__ import annotations

from contextlib import closing, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks import by_hand, loop, quick_loop
from benchmarks.clock import Clock
from benchmarks.disk import PeakDisk, bytes_under
from benchmarks.shared import MAX_BYTES, import_the_rest, sdk_at, settings_of, timed

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb

FEW = 3
#: Up to so many rows, one process does it so often.
SMALL = 10_000
ROUNDS = 7


def whole_client(work: Path, given: dict[str, Any]) -> Clock:
    """mistral_batch_submit and mistral_batch_results; all that the README tells of is checked and kept."""
    import duckdb_mistral
    from duckdb_mistral.api.client import BatchClient

    import_the_rest()
    creating = timed(BatchClient, "create")
    settings = settings_of(work, given) | {"server_url": given["url"], "poll_seconds": loop.POLL_SECONDS}
    with duckdb_mistral.connect(given["database"], settings=settings) as connection:

        def once(clock: Clock, table: str, _: Path) -> None:
            run = uuid4()  # without it, what was sent before would be found in the workspace and not be sent again
            creating.clear()
            with clock.step("submit"):
                jobs = connection.execute(
                    f"FROM mistral_batch_submit('{table}', metadata := {{'run': '{run}'}})"
                ).fetchall()
            clock.leave_out("submit", sum(creating))
            clock.figures["parts"] = len(jobs)
            connection.execute("FROM mistral_batch_wait($id)", {"id": jobs[0][0]}).fetchall()
            with clock.step("results"):
                connection.execute(
                    f"CREATE TEMP TABLE joined AS SELECT {table}.*, content "
                    f"FROM {table} JOIN mistral_batch_results('{jobs[0][0]}') USING (custom_id)"
                )

        return _warm(work, given, connection, once)


def whole_by_hand(work: Path, given: dict[str, Any]) -> Clock:
    """DuckDB by hand, with the SDK for the API: COPY, and read_json with its columns named; nothing is checked."""
    return _with_sdk(work, given, by_hand.submit, by_hand.join, before="SET preserve_insertion_order = false")


def whole_orjson(work: Path, given: dict[str, Any]) -> Clock:
    """Run a loop with orjson that streams all files; nothing is checked."""
    return _with_sdk(work, given, quick_loop.submit, quick_loop.join)


def whole_loop(work: Path, given: dict[str, Any]) -> Clock:
    """Run the documented loop; nothing is checked."""
    return _with_sdk(work, given, _documented_submit, _documented_join)


def _documented_submit(sdk: Any, connection: duckdb.DuckDBPyConnection, table: str, _: Path) -> list[str]:
    return loop.submit(sdk, loop.staged(connection, table), MAX_BYTES)


def _documented_join(
    sdk: Any, connection: duckdb.DuckDBPyConnection, table: str, outputs: list[str], work: Path
) -> None:
    answers = [answer for file_id in outputs for answer in loop.read(sdk, file_id, work / "output.jsonl")]
    loop.join(connection, table, [custom_id for custom_id, _ in answers], [content for _, content in answers])


def _with_sdk(
    work: Path,
    given: dict[str, Any],
    submit: Callable[[Any, duckdb.DuckDBPyConnection, str, Path], list[str]],
    join: Callable[[Any, duckdb.DuckDBPyConnection, str, list[str], Path], None],
    *,
    before: str = "",
) -> Clock:
    """Let `submit` upload files and return their ids, and `join` make the table joined of the ids of the outputs."""
    import duckdb

    import_the_rest()
    connection = duckdb.connect(given["database"])
    with closing(connection), sdk_at(given["url"]) as sdk:
        connection.execute(before)

        def once(clock: Clock, table: str, place: Path) -> None:
            with clock.step("submit"):
                file_ids = submit(sdk, connection, table, place)
            clock.figures["parts"] = len(file_ids)
            jobs = [loop.create(sdk, file_id) for file_id in file_ids]
            outputs = [loop.wait(sdk, job_id) for job_id in jobs]
            with clock.step("results"):
                join(sdk, connection, table, outputs, place)

        return _warm(work, given, connection, once)


def _warm(
    work: Path, given: dict[str, Any], connection: duckdb.DuckDBPyConnection, once: Callable[[Clock, str, Path], None]
) -> Clock:
    """Run `once` for a few rows, and then for the table staging by the clock that is returned.

    The third argument is an empty directory. The disk is that of the first time with staging.
    """
    clock = Clock()
    connection.execute(f"CREATE TEMP TABLE few AS FROM staging LIMIT {FEW}")
    with TemporaryDirectory(dir=work) as place:
        once(clock, "few", Path(place))
    clock = Clock()
    runs, processor = [], []
    for number in range(ROUNDS if given["rows"] <= SMALL else 1):
        connection.execute("DROP TABLE joined")
        clock.seconds, clock.processor_seconds = {}, 0.0
        with TemporaryDirectory(dir=work) as place, PeakDisk(work) if number == 0 else nullcontext() as disk:
            once(clock, "staging", Path(place))
        if disk is not None:
            clock.figures |= {"disk": disk.peak_bytes, "kept": bytes_under(work)}
        rows = connection.execute("SELECT count(*), count(prompt), count(content) FROM joined").fetchone()
        assert rows == (given["rows"],) * 3
        runs.append(clock.seconds)
        processor.append(clock.processor_seconds)
    clock.seconds = {step: min(run[step] for run in runs) for step in runs[0]}
    clock.processor_seconds = min(processor)
    return clock
