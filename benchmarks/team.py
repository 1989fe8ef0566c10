"""Contenders: a ledger of many submissions, under `home` or on PostgreSQL, and machines that wait together."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks.clock import Clock
from benchmarks.far import far_away
from benchmarks.many_jobs import counted, report_of_running, submission_of_parts
from benchmarks.processes import witness
from benchmarks.shared import KEY, import_the_rest

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.far import Far
    from duckdb_mistral.settings import Settings
    from duckdb_mistral.state.ledger import Ledger

#: Of one part.
REQUESTS = 100
PARTS = 100
#: So many submissions are written in one transaction.
FILLED = 50


def team_ledger(work: Path, given: dict[str, Any]) -> Clock:
    """Submit to, read from and show a ledger that is full; count its statements and its round trips.

    All has been done once before, with a submission of one row.
    """
    import duckdb_mistral

    import_the_rest()
    with ExitStack() as stack:
        far = None
        settings = {"api_key": KEY, "home": given.get("home", work / "home"), "server_url": given["url"]}
        settings |= {"max_requests_per_job": REQUESTS, "max_pending_requests": 100_000_000, "poll_seconds": 0.5}
        if "ledger" in given:
            settings["ledger"] = given["ledger"]
            if given["far"]:
                far = stack.enter_context(far_away(given["ledger"], given["far"]))
                settings["ledger"] = far.url
        connection = stack.enter_context(duckdb_mistral.connect(settings=settings))
        run = uuid4()  # else what an earlier run has sent would be found in the workspace

        def submit(rows: int) -> list[Any]:
            source = f"SELECT range AS custom_id, 'say ' || range AS prompt FROM range({rows})"
            called = f"FROM mistral_batch_submit($source, metadata := {{'run': '{run}'}})"
            return connection.execute(called, {"source": source}).fetchall()

        def count(what: str) -> int:
            ((found,),) = connection.execute(f"SELECT count(*) FROM {what}").fetchall()
            return int(found)

        ((one, *_),) = submit(1)
        connection.execute("FROM mistral_batch_wait($id)", {"id": one}).fetchall()
        count(f"mistral_batch_results('{one}')")
        clock = Clock()
        with _step(clock, "submit 3", far):
            submit(3)
        with _step(clock, "submit parts", far):
            jobs = submit(PARTS * REQUESTS)
        assert len(jobs) == PARTS
        connection.execute("FROM mistral_batch_wait($id)", {"id": jobs[0][0]}).fetchall()
        for step in ("results", "results again"):
            with _step(clock, step, far):
                assert count(f"mistral_batch_results('{jobs[0][0]}')") == PARTS * REQUESTS
        with _step(clock, "status", far):
            assert count("mistral_batch_status()") > given["jobs"]
    return clock


class _step:  # noqa: N801  it is used as a function
    """Time a step, and count its statements and what went to a far database and back."""

    def __init__(self, clock: Clock, name: str, far: Far | None) -> None:
        self._clock, self._name, self._far = clock, name, far

    def __enter__(self) -> None:
        self._stack = ExitStack()
        self._counts = self._stack.enter_context(counted())
        self._trips = self._far.trips if self._far is not None else 0
        self._stack.enter_context(self._clock.step(self._name))

    def __exit__(self, *raised: object) -> None:
        self._stack.close()
        self._clock.figures[f"{self._name}: statements"] = self._counts.total()
        if self._far is not None:
            self._clock.figures[f"{self._name}: trips"] = self._far.trips - self._trips


def team_wait(work: Path, given: dict[str, Any]) -> Clock:
    """Let so many machines, each a thread with a `home` of its own, wait for one submission whose jobs run on."""
    import duckdb_mistral
    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.batches.wait import wait
    from duckdb_mistral.errors import WaitTimeoutError
    from duckdb_mistral.settings import Settings

    import_the_rest()
    minutes: int = given["minutes"]
    told = {"api_key": KEY, "home": work / "home", "server_url": given["url"], "max_requests_per_job": 1}
    told["ledger"] = given["ledger"]
    with duckdb_mistral.connect(settings=told) as connection:
        source = f"SELECT range AS custom_id, 'wait for {uuid4()}' AS prompt FROM range({PARTS})"
        submitted = connection.execute("FROM mistral_batch_submit($source)", {"source": source}).fetchall()
    submission_id = submitted[0][0]
    seconds = minutes * given["minute_seconds"]
    failed: list[Exception] = []

    def machine(settings: Settings) -> None:
        try:
            with closing(Context(settings)) as context, suppress(WaitTimeoutError):
                wait(context, submission_id, seconds)
        except Exception as error:  # noqa: BLE001  it is raised below
            failed.append(error)

    machines = [
        threading.Thread(target=machine, args=(Settings.resolve(told | {"home": work / f"home-{number}"}, {}),))
        for number in range(given["machines"])
    ]
    calls, statements = [_calls(given["url"])], [0]
    clock = Clock()
    with clock.step("wait"), counted() as counts:
        began = time.monotonic()
        for thread in machines:
            thread.start()
        for minute in range(minutes):
            time.sleep(max(0.0, began + (minute + 1) * given["minute_seconds"] - time.monotonic()))
            calls.append(_calls(given["url"]))
            statements.append(counts.total())
    for thread in machines:
        thread.join()
    if failed:
        raise failed[0]
    clock.figures |= {"calls": calls, "statements": statements}
    return clock


def _calls(url: str) -> int:
    return sum(witness(url)["requests"].values())


def fill(ledger: Ledger, submissions: int, server_url: str) -> None:
    """Add so many submissions of a hundred parts, whose jobs have all ended, with statements of many rows each."""
    from dataclasses import asdict

    from duckdb_mistral.jobs.job import Part, Step, now
    from duckdb_mistral.state import tables
    from duckdb_mistral.state.records import planned_rows, reported_values, submission_row

    for start in range(0, submissions, FILLED):
        made = [submission_of_parts(PARTS, server_url) for _ in range(min(FILLED, submissions - start))]
        its_parts = {
            one.submission_id: [
                Part(submission_id=one.submission_id, part=part + 1, request_count=1, input_bytes=1)
                for part in range(PARTS)
            ]
            for one in made
        }
        rows = [
            row | {"step": Step.CREATED, "sent_at": now()} | reported_values(report_of_running(str(uuid4()), "SUCCESS"))
            for one in made
            for row in planned_rows(one, its_parts[one.submission_id])
        ]
        with ledger.database.writing() as connection:
            connection.execute(tables.submissions.insert(), [submission_row(one) for one in made])
            connection.execute(tables.parts.insert(), [asdict(part) for some in its_parts.values() for part in some])
            connection.execute(tables.jobs.insert(), rows)
