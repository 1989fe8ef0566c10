"""The cases of the first call of a process and of many jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import data, many_jobs
from benchmarks.cases import Row, Sizes
from benchmarks.cells import Scratch, ratio, seconds
from benchmarks.processes import run_contender, server, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Prompts of the first submit of a process.
FIRST = 100
JOBS = 1_000
STORED = 100_000
#: Parts of the submission whose statements are counted.
PARTS = 100


def first(sizes: Sizes) -> Iterator[Row]:
    """Submit for the first time in a fresh process, against DuckDB by hand and the import of the SDK alone."""
    with Scratch(sizes.scratch) as scratch:
        database = scratch / "staging.duckdb"
        data.make_staging(database, FIRST, min(sizes.lengths))
        with server(scratch / "server") as url:
            given = {"scratch": str(scratch), "database": str(database), "url": url, "rows": FIRST}
            names = ("first_submit", "first_by_hand", "first_sdk")
            found = take_turns(dict.fromkeys(names, given), repeats=2 * sizes.repeats)
    ours, by_hand, sdk = (found[name] for name in names)
    yield Row(
        case="first",
        rows=0,
        length=0,
        cells={
            "first submit": seconds(ours.total),
            "by hand": seconds(by_hand.total),
            "ratio": ratio(ours.total, by_hand.total),
            "of processor time": ratio(ours.processor_seconds, by_hand.processor_seconds),
            "more than by hand": seconds(ours.total - by_hand.total),
            "import of the SDK alone": seconds(sdk.total),
        },
    )


def jobs(sizes: Sizes) -> Iterator[Row]:
    """Write and show many jobs of the ledger, against plain SQLite that writes or reads as much."""
    with Scratch(sizes.scratch) as scratch:
        given = {"scratch": str(scratch), "jobs": JOBS}
        found = take_turns({"sqlite_reports": given, "ledger_reports": given}, repeats=sizes.repeats)
        many_jobs.fill(scratch / "home", STORED)
        stored = {"scratch": str(scratch), "home": str(scratch / "home"), "jobs": STORED}
        found |= take_turns({"sqlite_status": stored, "status_many": stored}, repeats=sizes.repeats)
        with server(scratch / "server") as url:
            parts = run_contender("statements", given | {"url": url, "jobs": PARTS})
    written, told = found["sqlite_reports"], found["ledger_reports"]
    floor, shown = found["sqlite_status"], found["status_many"]
    yield Row(
        case="jobs",
        rows=0,
        length=0,
        cells={
            "1,000 reports, SQLite": seconds(written.total),
            "1,000 reports": seconds(told.seconds["new"]),
            "ratio": ratio(told.seconds["new"], written.total),
            "statements": str(told.figures["statements"]),
            "the same again": seconds(told.seconds["known"]),
            "its writes": str(told.figures["writes, known"]),
            "100,000 rows, SQLite": seconds(floor.total),
            "status of 100,000": seconds(shown.total),
            "its ratio": ratio(shown.total, floor.total),
            "statements per job, submit": f"{parts.figures['submit'] / PARTS:.1f}",
            "results": f"{parts.figures['results'] / PARTS:.1f}",
        },
    )


CASES: dict[str, Callable[[Sizes], Iterator[Row]]] = {function.__name__: function for function in (first, jobs)}
