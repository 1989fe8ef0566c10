"""Contenders: small tables, in a process that has done the same before, and the first call of a fresh one."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks import by_hand, loop
from benchmarks.clock import Clock
from benchmarks.shared import KEY, MAX_BYTES, import_the_rest, sdk_at, settings_of, timed

if TYPE_CHECKING:
    from pathlib import Path

#: How often a warm contender does the same with other prompts; the quickest of each step counts.
ROUNDS = 7


def small_loop(work: Path, given: dict[str, Any]) -> Clock:
    """Run the documented loop several times in one process; it checks nothing, and keeps (id, content)."""
    import duckdb

    import_the_rest()
    connection = duckdb.connect(given["database"])
    rounds = []
    with closing(connection), sdk_at(given["url"]) as sdk:
        clock = Clock()
        for number in range(ROUNDS):
            once = Clock()
            with once.step("submit"):
                rows = [(custom_id, f"{prompt} {number}") for custom_id, prompt in loop.staged(connection)]
                (file_id,) = loop.submit(sdk, rows, MAX_BYTES)
            output = loop.wait(sdk, loop.create(sdk, file_id))
            with once.step("results"):
                connection.execute("DROP TABLE IF EXISTS answers")
                loop.make_table(connection, loop.read(sdk, output, work / "output.jsonl"))
            rounds.append(once)
    return _quickest(clock, rounds)


def small_client(work: Path, given: dict[str, Any]) -> Clock:
    """mistral_batch_submit and mistral_batch_results, several times in one process."""
    import duckdb_mistral
    from duckdb_mistral.api.client import BatchClient

    import_the_rest()
    waited = timed(BatchClient, "create")
    settings = settings_of(work, given) | {"server_url": given["url"], "poll_seconds": loop.POLL_SECONDS}
    rounds = []
    submit = (
        f"FROM mistral_batch_submit($source, metadata := {{'run': '{uuid4()}'}})"  # else it is found in the workspace
    )
    with duckdb_mistral.connect(given["database"], settings=settings) as connection:
        clock = Clock()
        for number in range(ROUNDS):
            once = Clock()
            source = f"SELECT custom_id, prompt || ' {number}' AS prompt FROM staging"
            with once.step("submit"):
                ((job),) = connection.execute(submit, {"source": source}).fetchall()
            once.leave_out("submit", waited.pop())
            connection.execute("FROM mistral_batch_wait($id)", {"id": job[0]}).fetchall()
            with once.step("results"):
                connection.execute("DROP TABLE IF EXISTS answers")
                connection.execute(
                    "CREATE TEMP TABLE answers AS "
                    f"SELECT custom_id, outcome, content FROM mistral_batch_results('{job[0]}')"
                )
            rounds.append(once)
        assert connection.execute("SELECT count(*) FROM answers").fetchone() == (given["rows"],)
    return _quickest(clock, rounds)


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


def _quickest(clock: Clock, rounds: list[Clock]) -> Clock:
    for name in rounds[0].seconds:
        clock.seconds[name] = min(once.seconds[name] for once in rounds)
    clock.processor_seconds = min(once.processor_seconds for once in rounds)
    return clock
