"""Locks between machines: rows that expire by the server's clock, and what a holder may do that has lost one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from postgres import is_there, new_ledger, schema_of, shared_server
from submissions import added, parts_of, report, submission
from support import run_python

from duckdb_mistral.errors import LedgerError
from duckdb_mistral.jobs.job import Step
from duckdb_mistral.runtime.retry_policy import Retry
from duckdb_mistral.state import leases as written_leases
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.leases import Leases
from duckdb_mistral.state.ledger import Ledger
from duckdb_mistral.state.names import spool_lock
from duckdb_mistral.state.tables import locks as locks_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not is_there(), reason="no PostgreSQL is installed here")

#: How long a lock of these tests outlives its holder.
BRIEF = 0.6
HOLDER = """
import sys
from pathlib import Path
from duckdb_mistral.runtime.retry_policy import Retry
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.leases import Leases
from duckdb_mistral.state.ledger import Ledger

home = Home(Path(sys.argv[1]))
ledger = Ledger(home, sys.argv[2])
with Leases(home, Retry(), lambda: ledger.database, seconds=float(sys.argv[3])).waiting("name"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(params=["postgresql", "pgbouncer"])
def address(request: pytest.FixtureRequest) -> str:
    """Return the address of a ledger of its own, at the server and through a pooler."""
    made = new_ledger(request.param)
    assert made is not None
    return made


@pytest.fixture
def ledger(home: Path, address: str) -> Iterator[Ledger]:
    """Yield an empty ledger."""
    opened = Ledger(Home(home), address)
    yield opened
    opened.database.close()


def leases(ledger: Ledger, home: Path, seconds: float = BRIEF, retry: Retry | None = None) -> Leases:
    """Return the locks of a ledger for the user of a home, on whatever machine."""
    return Leases(Home(home), retry or Retry(), lambda: ledger.database, seconds=seconds)


def holder(home: Path, address: str, seconds: float = BRIEF) -> subprocess.Popen[str]:
    """Return a process that holds the lock `name`, until it is written to."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(home), address, str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout
    assert child.stdout.readline() == "held\n"
    return child


def test_held_between_homes(ledger: Ledger, home: Path, tmp_path: Path) -> None:
    """A lock that one home holds cannot be had by another for longer than it would live unrenewed, and then can."""
    other = leases(ledger, tmp_path / "other")
    with leases(ledger, home).waiting("name"):
        until = time.monotonic() + 2 * BRIEF
        while time.monotonic() < until:
            assert other.held("name") is None
            time.sleep(0.1)
    with other.trying("name") as held:
        assert held


def test_locks_of_files_alone(ledger: Ledger, home: Path, tmp_path: Path) -> None:
    """A lock that guards files under one home is no other home's business, and takes no row."""
    name = spool_lock("submission")
    with leases(ledger, home).waiting(name):
        with leases(ledger, tmp_path / "other").trying(name) as held:
            assert held
        with leases(ledger, home).trying(name) as held:
            assert not held


@pytest.mark.parametrize("killed", [True, False], ids=["is killed", "is stopped"])
def test_holder_on_another_machine(ledger: Ledger, address: str, home: Path, tmp_path: Path, killed: bool) -> None:
    """The lock of a process elsewhere that died or was stopped is taken once it has expired, and not before."""
    child = holder(home, address, seconds=2.0)
    child.kill() if killed else os.kill(child.pid, signal.SIGSTOP)
    other = leases(ledger, tmp_path / "other")
    try:
        assert other.held("name") is None
        with other.waiting("name"):
            assert ledger.database.rows(sa.select(locks_table))[0].told.endswith(f"process {os.getpid()}")
    finally:
        child.kill()
        child.communicate()


def test_holder_of_the_same_home_that_died(ledger: Ledger, address: str, home: Path) -> None:
    """The lock of a process that died on this machine is free at once, however long it would have lived."""
    child = holder(home, address, seconds=3600)
    mine = leases(ledger, home, seconds=3600)
    assert mine.held("name") is None
    child.kill()
    child.communicate()
    with mine.trying("name") as held:
        assert held


def test_holder_of_a_copied_home_that_died(ledger: Ledger, address: str, home: Path, tmp_path: Path) -> None:
    """A copy of a home is another place: it waits until the lock has expired."""
    child = holder(home, address, seconds=3600)
    shutil.copytree(home, tmp_path / "copy")
    child.kill()
    child.communicate()
    assert leases(ledger, tmp_path / "copy").held("name") is None


def test_place_without_a_boot_id(ledger: Ledger, address: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a system does not tell which start of it this is, the lock of a dead process is waited for."""
    monkeypatch.setattr(written_leases, "_boot", lambda: None)
    child = holder(home, address, seconds=3600)
    child.kill()
    child.communicate()
    assert leases(ledger, home).held("name") is None


def test_clock_of_the_server_alone_counts(
    ledger: Ledger, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock is held, however far the clock of another machine is ahead."""
    with leases(ledger, home, seconds=60).waiting("name"):
        ahead = time.time() + 3600
        monkeypatch.setattr(time, "time", lambda: ahead)
        assert leases(ledger, tmp_path / "other", seconds=60).held("name") is None


def test_sending_under_the_lock_alone(ledger: Ledger, address: str, home: Path) -> None:
    """A job moves to SENDING as long as the lock of its submission is held, and to any other step without it."""
    locks = leases(ledger, home)
    mine = Ledger(Home(home), address, locks=locks)
    made = added(mine)
    job, other, third, _ = mine.jobs()
    assert not mine.move(job, Step.SENDING)
    assert not mine.begin(job, sent_at=1, least_wait=1)
    with locks.waiting("another"):
        assert not mine.move(job, Step.SENDING)
        assert not mine.begin(job, sent_at=1, least_wait=1)
    with locks.waiting(made.submission_id):
        assert mine.move(job, Step.SENDING)
        assert mine.begin(third, sent_at=1, least_wait=1)
        locks.check(made.submission_id)
    sending = mine.jobs_by_key([job.key])[0]
    assert not mine.begin(other, sent_at=1, least_wait=1, after=(sending, report()))
    mine.created(sending, report())
    assert [one.step for one in mine.jobs()] == [Step.CREATED, Step.PLANNED, Step.SENDING, Step.PLANNED]
    assert not mine.move(other, Step.SENDING)
    assert mine.move(other, Step.HELD)
    with pytest.raises(LedgerError, match=r"nothing more is sent"):
        locks.check(made.submission_id)
    mine.database.close()


def test_lock_that_was_lost(ledger: Ledger, address: str, home: Path, tmp_path: Path) -> None:
    """A holder whose lock expired, and that another one took, begins no create, and says why."""
    locks = leases(ledger, home, seconds=3600)
    mine = Ledger(Home(home), address, locks=locks)
    made = added(mine)
    job, *_ = mine.jobs()
    with locks.waiting(made.submission_id):
        shared_server().execute(f"UPDATE {schema_of(address)}.locks SET until = clock_timestamp()")
        assert not mine.move(job, Step.SENDING)
        assert not mine.begin(job, sent_at=1, least_wait=1)
        with leases(ledger, tmp_path / "other").waiting(made.submission_id):
            assert not mine.move(job, Step.SENDING)
            with pytest.raises(LedgerError, match=r"cut off .* for more than 3600 seconds.*Run the statement again"):
                locks.check(made.submission_id)
        assert mine.jobs_by_key([job.key]) == [job]
    mine.database.close()


def test_recording_under_a_lock(ledger: Ledger, address: str, home: Path, tmp_path: Path) -> None:
    """A submission is recorded under a lock that is held, and not where it was never taken, or was lost."""
    locks = leases(ledger, home, seconds=3600)
    mine = Ledger(Home(home), address, locks=locks)
    first, second = submission(), submission(identity="another")
    with pytest.raises(LedgerError, match=r"nothing more is sent"):
        mine.add(first, parts_of(first), under="reuse")
    with locks.waiting("reuse"):
        assert mine.add(first, parts_of(first), under="reuse")
        shared_server().execute(f"UPDATE {schema_of(address)}.locks SET until = clock_timestamp()")
        with leases(ledger, tmp_path / "other").waiting("reuse"):
            with pytest.raises(LedgerError, match=r"cut off .* for more than 3600 seconds.*Run the statement again"):
                mine.add(second, parts_of(second), under="reuse")
            assert [one.submission_id for one in mine.submissions()] == [first.submission_id]
    mine.database.close()


def test_nobody_takes_a_lock_while_it_is_recorded_under(
    ledger: Ledger, address: str, home: Path, tmp_path: Path
) -> None:
    """A lock that expires within a transaction which keeps it is free to others once that has ended."""
    locks, other = leases(ledger, home, seconds=3600), leases(ledger, tmp_path / "other")
    taken = threading.Event()

    def take() -> None:
        with other.waiting("reuse"):
            taken.set()

    thread = threading.Thread(target=take)
    with locks.waiting("reuse"):
        shared_server().execute(
            f"UPDATE {schema_of(address)}.locks SET until = clock_timestamp() + make_interval(secs => 0.5)"
        )
        with ledger.database.writing() as connection:
            locks.keep(connection, "reuse")
            thread.start()
            assert not taken.wait(1.5)
        assert taken.wait(30)
        thread.join()


def test_letting_go_of_a_lock_that_another_has(ledger: Ledger, address: str, home: Path, tmp_path: Path) -> None:
    """Whoever lost a lock lets go of its own alone: the new holder keeps it."""
    with leases(ledger, home, seconds=3600).waiting("name"):
        shared_server().execute(f"UPDATE {schema_of(address)}.locks SET until = clock_timestamp()")
        release = leases(ledger, tmp_path / "other").held("name")
        assert release is not None
    assert leases(ledger, home).held("name") is None
    release()
    with leases(ledger, home).trying("name") as held:
        assert held


def test_fork_while_it_is_held(home: Path, address: str) -> None:
    """A fork does not hold the locks of its parent, and does not let go of them."""
    code = """
    import os, sys
    from pathlib import Path
    from duckdb_mistral.runtime.retry_policy import Retry
    from duckdb_mistral.state.home import Home
    from duckdb_mistral.state.leases import Leases
    from duckdb_mistral.state.ledger import Ledger

    home = Home(Path(sys.argv[1]))
    ledger = Ledger(home, sys.argv[2])
    locks = Leases(home, Retry(), lambda: ledger.database, seconds=60)
    lease = locks.waiting("name")
    lease.__enter__()
    child = os.fork()
    if not child:
        held = bool(ledger.database.rows(__import__("sqlalchemy").select(1).where(*locks.conditions("name"))))
        lease.__exit__(None, None, None)
        os._exit(held)
    print(os.waitpid(child, 0)[1])
    locks.check("name")
    lease.__exit__(None, None, None)
    """
    child = run_python(textwrap.dedent(code), {}, str(home), address)
    assert (child.stdout, child.stderr) == ("0\n", "")


def test_turns(ledger: Ledger, tmp_path: Path) -> None:
    """A turn is one machine's, and the next one's only so many seconds after its end."""
    one, two = leases(ledger, tmp_path / "one"), leases(ledger, tmp_path / "two")
    with one.turn("poll", 0.3) as first, two.turn("poll", 0) as meanwhile:
        assert first.is_ours
        assert not meanwhile.is_ours
    for locks in (one, two):
        with locks.turn("poll", 60) as soon:
            assert not soon.is_ours
    time.sleep(0.3)
    with two.turn("poll", 0.3) as later, two.turn("other", 60) as other:
        assert later.is_ours
        assert other.is_ours


def test_turn_in_vain(ledger: Ledger, tmp_path: Path) -> None:
    """A turn of which nothing came, or that ended in an error, keeps nobody waiting."""
    one, two = leases(ledger, tmp_path / "one"), leases(ledger, tmp_path / "two")
    with one.turn("poll", 60) as turn:
        turn.in_vain = True
    with pytest.raises(KeyError), two.turn("poll", 60):
        raise KeyError
    with one.turn("poll", 60) as turn:
        assert turn.is_ours
