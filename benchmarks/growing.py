"""Contenders without a rival: what grows with the number of jobs, of requests, and of parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.clock import Clock, Told
from benchmarks.shared import KEY, import_the_rest, source_of


def status(_: Path, given: dict[str, Any]) -> Clock:
    """mistral_batch_status of a ledger full of jobs that run."""
    import mistralai.client  # noqa: F401

    import duckdb_mistral

    settings = {"api_key": KEY, "home": given["home"], "server_url": given["url"]}
    with duckdb_mistral.connect(settings=settings) as connection:
        clock = Clock()
        with clock.step("status"):
            rows = connection.execute("SELECT status FROM mistral_batch_status()").fetchall()
    assert len(rows) == given["jobs"]
    clock.figures["rows"] = len(rows)
    return clock


def memory(_: Path, given: dict[str, Any]) -> Clock:
    """Submit prompts that are made while they are read, and look at every answer: the peak of each of the two.

    The settings are those that everybody has, so many prompts are many parts.
    """
    import duckdb_mistral

    import_the_rest()
    settings = {"api_key": KEY, "home": Path(given["home"]), "server_url": given["url"], "poll_seconds": 0.5}
    with duckdb_mistral.connect(settings=settings) as connection:
        data.make_phrases(connection, given["length"])
        clock = Clock()
        with clock.step("submit"):
            jobs = connection.execute("FROM mistral_batch_submit($source)", {"source": source_of(given)}).fetchall()
        clock.figures |= {"parts": len(jobs), "submit": clock.added_bytes}
        with clock.step("wait"):
            connection.execute("FROM mistral_batch_wait($id)", {"id": jobs[0][0]}).fetchall()
        clock.forget_peak()
        with clock.step("results"):
            found = connection.execute(
                f"SELECT count(*), sum(length(content)) FROM mistral_batch_results('{jobs[0][0]}') WHERE outcome = 'ok'"
            ).fetchone()
        clock.figures["results"] = clock.added_bytes
    assert found is not None
    assert found[0] == given["rows"]
    clock.figures["bytes"] = found[1]
    return clock


def scale(_: Path, given: dict[str, Any]) -> Clock:
    """Submit prompts that are made while they are read, wait until all parts were created and ended, count the results.

    No custom_id is lost or doubled: their number, the sum and the exclusive or of their hashes are those of the source.
    """
    import mistralai.client  # noqa: F401

    import duckdb_mistral

    home = Path(given["home"])
    settings = {
        "api_key": KEY,
        "home": home,
        "server_url": given["url"],
        "max_requests_per_job": given["rows_per_part"],
        "max_pending_requests": given["limit"],
        "poll_seconds": 0.1,
    }
    made = f"SELECT range AS custom_id, 'say ' || range AS prompt FROM range({given['rows']})"
    summed = "count(*), sum(hash(custom_id::VARCHAR)), bit_xor(hash(custom_id::VARCHAR))"
    with duckdb_mistral.connect(settings=settings) as connection:
        clock = Clock()
        with clock.step("submit"):
            jobs = connection.execute("FROM mistral_batch_submit($source)", {"source": made}).fetchall()
        with clock.step("wait"):
            connection.execute("FROM mistral_batch_wait($id)", {"id": jobs[0][0]}).fetchall()
        with clock.step("results"):
            found = connection.execute(
                f"SELECT {summed} FROM mistral_batch_results('{jobs[0][0]}') WHERE outcome = 'ok'"
            ).fetchone()
        clock.figures["parts"] = len(jobs)
        clock.figures["ledger_bytes"] = sum(path.stat().st_size for path in home.glob("ledger.sqlite*"))
        told = clock.told()
        assert found == connection.execute(f"SELECT {summed} FROM ({made})").fetchone()
    return Told(told)
