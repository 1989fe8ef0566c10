"""The stamp on a ledger that was moved: what it tells, and that nothing is written under it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from submissions import added, report

from duckdb_mistral.errors import LedgerError
from duckdb_mistral.jobs.job import Step
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.ledger import Ledger
from duckdb_mistral.state.sqlite import SQLiteDatabase
from duckdb_mistral.state.stamp import finish, id_of, read_stamp, stamp, unstamp

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ledger(home: Path) -> Ledger:
    """Return an empty ledger in a file, under a name that SQL would take for more."""
    return Ledger(Home(home.with_name("it's a home")))


def test_stamp_and_back(ledger: Ledger) -> None:
    """A stamped ledger can be read and not written, nor opened; once the stamp is gone it is as before."""
    made = added(ledger)
    before = ledger.jobs()
    stamp(ledger.database, "at db/team", "an id")
    told = (
        r"The ledger under .*it's a home was moved to the ledger at db/team, so nothing is sent from here\. .*--to home"
    )
    writes = (
        lambda: added(ledger, identity="other"),
        lambda: ledger.move(before[0], Step.SENDING),
        lambda: ledger.begin(before[0], sent_at=None, least_wait=1),
        lambda: ledger.set_files([replace(ledger.parts(made.submission_id)[0], file_id="file")]),
        lambda: ledger.retire(made.submission_id),
        lambda: ledger.adopt(report(), "https://example.com"),
        lambda: ledger.forget(made.submission_id),
    )
    for write in writes:
        with pytest.raises(LedgerError, match=told):
            write()
    assert ledger.jobs() == before
    with pytest.raises(LedgerError, match=r"is being moved to the ledger at db/team.*one was cut short"):
        Ledger(ledger.database.home)
    finish(ledger.database)
    with pytest.raises(LedgerError, match=told):
        Ledger(ledger.database.home)
    ledger.database.transact(unstamp)
    assert ledger.move(before[0], Step.SENDING)
    assert read_stamp(ledger.database) is None
    Ledger(ledger.database.home).database.close()


def test_what_a_stamp_tells(ledger: Ledger) -> None:
    """A stamp tells where the ledger went, and whether all of it is there."""
    assert read_stamp(ledger.database) is None
    stamp(ledger.database, "at db/team", "an id")
    found = read_stamp(ledger.database)
    assert found is not None
    assert (found.place, found.ledger_id, found.finished) == ("at db/team", "an id", False)
    finish(ledger.database)
    found = read_stamp(ledger.database)
    assert found is not None
    assert (found.place, found.ledger_id, found.finished) == ("at db/team", "an id", True)


@pytest.mark.parametrize("step", [Step.SENDING, Step.GIVEN_UP])
def test_no_stamp_on_a_job_on_its_way(step: Step, ledger: Ledger) -> None:
    """A ledger with a job whose create may be on its way is not stamped, and that job goes on."""
    added(ledger)
    job, *_ = ledger.jobs()
    for each in (Step.SENDING, step):
        assert ledger.move(job, each)
        job = job.evolve(step=each)
    with pytest.raises(LedgerError, match=rf"Part 1 of submission {job.submission_id} in the ledger under .* may be"):
        stamp(ledger.database, "at db/team", "an id")
    assert ledger.created(job, report())


def test_id(ledger: Ledger, tmp_path: Path) -> None:
    """A ledger keeps the id by which it is known from others."""
    first = id_of(ledger.database)
    with closing(SQLiteDatabase(ledger.database.home)) as again:
        assert id_of(again) == first
    assert id_of(Ledger(Home(tmp_path / "other")).database) != first
