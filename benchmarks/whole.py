"""Contenders: the whole of the client's side."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import loop
from benchmarks.clock import Clock
from benchmarks.shared import KEY, MAX_BYTES, import_the_rest, sdk_at, settings_of, timed

if TYPE_CHECKING:
    from collections.abc import Iterator


def whole_loop(work: Path, given: dict[str, Any]) -> Clock:
    """Run the loop by hand, from the staging table to a table of answers."""
    import duckdb

    import_the_rest()
    connection = duckdb.connect(given["database"])
    with closing(connection), sdk_at(given["url"]) as sdk:
        clock = Clock()
        with clock.step("submit"):
            file_ids = loop.submit(sdk, loop.staged(connection), MAX_BYTES)
        jobs = [loop.create(sdk, file_id) for file_id in file_ids]
        outputs = [loop.wait(sdk, job_id) for job_id in jobs]
        with clock.step("results"):
            results = [result for file_id in outputs for result in loop.read(sdk, file_id, work / "output.jsonl")]
        with clock.step("table"):
            loop.make_table(connection, results)
        assert connection.execute("SELECT count(*) FROM answers").fetchone() == (given["rows"],)
    return clock


def whole_client(work: Path, given: dict[str, Any]) -> Clock:
    """mistral_batch_submit and mistral_batch_results, from the staging table to a table of answers."""
    import duckdb_mistral
    from duckdb_mistral.api.client import BatchClient
    from duckdb_mistral.batches import collect  # noqa: F401  as a second call has them
    from duckdb_mistral.functions import arguments, statements  # noqa: F401  as a second call has them
    from duckdb_mistral.requests import checks, columns  # noqa: F401  as a second call has them

    import_the_rest()
    waited = timed(BatchClient, "create")
    settings = settings_of(work, given) | {"server_url": given["url"], "poll_seconds": loop.POLL_SECONDS}
    with duckdb_mistral.connect(given["database"], settings=settings) as connection:
        clock = Clock()
        with clock.step("submit"):
            (submission_id, *_), *jobs = connection.execute("FROM mistral_batch_submit('staging')").fetchall()
        clock.leave_out("submit", sum(waited))
        connection.execute("FROM mistral_batch_wait($id)", {"id": submission_id}).fetchall()
        with clock.step("results"):
            connection.execute(
                "CREATE TEMP TABLE answers AS "
                f"SELECT custom_id, outcome, content FROM mistral_batch_results('{submission_id}')"
            )
        rows = connection.execute("SELECT count(*) FROM answers WHERE outcome = 'ok'").fetchone()
        assert rows == (given["rows"],)
    clock.figures["parts"] = 1 + len(jobs)
    return clock


def whole_transfer(work: Path, given: dict[str, Any]) -> Clock:
    """Send the same bytes up and down with the SDK's HTTP client, and nothing else."""
    import importlib

    http = importlib.import_module("mistralai.client.httpclient").httpx
    with http.Client(headers={"authorization": f"Bearer {KEY}"}, timeout=300, trust_env=False) as client:
        clock = Clock()
        with clock.step("upload"):
            list(_sent(client, given["url"], Path(given["requests"])))
        for file_id in list(_sent(client, given["url"], Path(given["results"]))):
            with (
                clock.step("download"),
                client.stream("GET", f"{given['url']}/v1/files/{file_id}/content") as stream,
                (work / "output.jsonl").open("wb") as file,
            ):
                for chunk in stream.iter_bytes(1 << 20):
                    file.write(chunk)
    return clock


def _sent(client: Any, url: str, path: Path) -> Iterator[str]:
    """Send a file in pieces that the server takes; yield their ids."""
    with path.open("rb") as content:
        while piece := content.read(MAX_BYTES):
            answer = client.post(f"{url}/v1/files", data={"purpose": "batch"}, files={"file": (path.name, piece)})
            yield answer.raise_for_status().json()["id"]
