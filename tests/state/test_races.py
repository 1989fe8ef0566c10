"""Races of many processes or threads for one ledger, on each engine: each thing is done by one of them.

`--rounds 50` runs each race as often, as `make soak` does.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from postgres import new_ledger
from submissions import added, report

from duckdb_mistral.jobs.job import Step
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROCESSES = 8


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """Return how often each race is run."""
    number: int = request.config.getoption("--rounds")
    return number


RACER = """
import sys
from pathlib import Path
from submissions import parts_of, submission
from duckdb_mistral.jobs.job import Step
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.ledger import Ledger

number = int(sys.argv[3])
ledger = None
for line in sys.stdin:
    what = line.strip()
    if what == "open":
        ledger = Ledger(Home(Path(sys.argv[1])), sys.argv[2] or None)
        told = len(ledger.jobs())
    elif what.startswith("add"):
        made = submission(identity=what)
        told = ledger.add(made, parts_of(made))
    elif what == "read":
        jobs = {job.key: job for job in ledger.jobs()}
        told = len(jobs)
    elif what == "move":
        told = sum(ledger.move(job, Step.SENDING, sent_at=number, sent_here_at=number) for job in jobs.values())
    print(told, flush=True)
"""


class Racers:
    """Processes that each do the same at the same moment."""

    def __init__(self, homes: list[Path], address: str | None) -> None:
        self._children = [
            subprocess.Popen(
                [sys.executable, "-c", RACER, str(home), address or "", str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number, home in enumerate(homes)
        ]

    def all(self, what: str) -> list[str]:
        """Let all of them do something; return what each told of it."""
        for child in self._children:
            assert child.stdin is not None
            child.stdin.write(f"{what}\n")
            child.stdin.flush()
        return [child.stdout.readline().strip() for child in self._children if child.stdout is not None]

    def close(self) -> None:
        """End them."""
        for child in self._children:
            child.communicate(timeout=60)


@pytest.fixture(params=["sqlite", "postgresql", "pgbouncer"])
def address(request: pytest.FixtureRequest) -> str | None:
    """Return the address of a ledger of its own, None for the one under a home."""
    return new_ledger(request.param)


@pytest.fixture
def racers(home: Path, address: str | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Racers]:
    """Yield eight processes that share a ledger which none has opened yet, with homes of their own where they can."""
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    made = Racers([home if address is None else home / str(number) for number in range(PROCESSES)], address)
    yield made
    made.close()


@pytest.mark.timeout(1200)
def test_processes_at_once(racers: Racers, home: Path, address: str | None, rounds: int) -> None:
    """Of processes at once all have the ledger that one of them makes, one adds a content, and each job moves once."""
    assert racers.all("open") == ["0"] * PROCESSES
    ledger = Ledger(Home(home), address)
    for number in range(rounds):
        assert sorted(racers.all(f"add {number}")) == ["False"] * (PROCESSES - 1) + ["True"]
        assert racers.all("read") == ["4"] * PROCESSES
        assert sum(map(int, racers.all("move"))) == 4
        assert len(ledger.submissions()) == 1
        assert {(job.step, job.sent_at is not None) for job in ledger.jobs()} == {(Step.SENDING, True)}
        with ledger.database.writing() as connection:
            for table in ("jobs", "parts", "submissions"):
                connection.exec_driver_sql(f"DELETE FROM {table}")
    ledger.database.close()


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run calls on threads of their own at the same moment; return what they returned."""
    together = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        together.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


@pytest.mark.timeout(1200)
def test_job_that_is_adopted_while_it_is_recorded(address: str | None, home: Path, rounds: int) -> None:
    """A job that is asked for by its id at the very moment at which its creation is recorded is one job, and ours."""
    ledgers = [Ledger(Home(home), address) for _ in range(4)]
    for number in range(rounds * 3):
        made = added(ledgers[0], identity=str(number))
        job = ledgers[0].jobs(made.submission_id)[0]
        assert ledgers[0].move(job, Step.SENDING)
        sending = job.evolve(step=Step.SENDING)
        told = report(job_id=f"job-{number}")
        found = at_once(
            partial(ledgers[0].created, sending, told),
            *(partial(one.adopt, told, "https://example.com") for one in ledgers[1:]),
        )
        assert [one if isinstance(one, bool) else one.job_id for one in found] == [True] + [told.job_id] * 3
        ours = ledgers[0].job(f"job-{number}")
        assert ours is not None
        assert (ours.key, ours.submission_id) == (job.key, made.submission_id)


@pytest.mark.timeout(1200)
def test_forgetting_what_is_about_to_be_sent(address: str | None, home: Path, rounds: int) -> None:
    """A submission is forgotten, or a job of it begins to be sent: never both."""
    ledgers = [Ledger(Home(home), address) for _ in range(2)]
    for number in range(rounds * 5):
        made = added(ledgers[0], identity=str(number))
        jobs = ledgers[0].jobs(made.submission_id)
        moved, forgotten = at_once(
            partial(ledgers[0].move, jobs[-1], Step.SENDING), partial(ledgers[1].forget, made.submission_id)
        )
        assert moved != forgotten
        assert len(ledgers[0].jobs(made.submission_id)) == (4 if moved else 0)
