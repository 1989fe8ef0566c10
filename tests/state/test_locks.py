"""Locks between processes: held by one, let go of at its end, however it ends."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from postgres import is_there, shared_server

from duckdb_mistral.runtime.retry_policy import Retry
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.leases import Leases
from duckdb_mistral.state.ledger import Ledger
from duckdb_mistral.state.locks import Locks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOLDER = """
import sys
from pathlib import Path
from duckdb_mistral.state.home import Home
from duckdb_mistral.state.locks import Locks
from duckdb_mistral.runtime.retry_policy import Retry
with Locks(Home(Path(sys.argv[1])), Retry()).waiting("name"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(params=["files", "leases"])
def opened(request: pytest.FixtureRequest, home: Path) -> Callable[..., Locks]:
    """Return what makes the locks of a home that does not exist yet; leases are of a ledger that all share."""
    if request.param == "files":
        return lambda retry=None, at=home: Locks(Home(at), retry or Retry())
    if not is_there():
        pytest.skip("no PostgreSQL is installed here")
    ledger = Ledger(Home(home), shared_server().new_url())
    return lambda retry=None, at=home: Leases(Home(at), retry or Retry(), lambda: ledger.database)


@pytest.fixture
def locks(opened: Callable[..., Locks]) -> Locks:
    """Return the locks of a home that does not exist yet."""
    return opened()


def test_held_once(locks: Locks, opened: Callable[..., Locks]) -> None:
    """A lock that is held cannot be had by another, and can again once it is let go."""
    with locks.waiting("name"):
        with opened().trying("name") as held:
            assert not held
        assert opened().held("name") is None
        with locks.trying("another") as held:
            assert held
    with opened().trying("name") as held:
        assert held
    let_go = locks.held("name")
    assert let_go is not None
    assert opened().held("name") is None
    let_go()
    with opened().trying("name") as held:
        assert held


def test_let_go_after_an_error(locks: Locks) -> None:
    """An error within lets go of the lock and goes through."""
    with pytest.raises(ZeroDivisionError), locks.waiting("name"):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), locks.trying("name"):
        raise ZeroDivisionError
    with locks.trying("name") as held:
        assert held


def test_files_are_the_owners_alone(locks: Locks, home: Path) -> None:
    """The lock files are in a directory of their own that nobody else can read."""
    with locks.waiting("name"):
        assert (home / "locks").stat().st_mode & 0o777 == 0o700
        assert (home / "locks" / "name.lock").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("killed", [False, True], ids=["ends", "is killed"])
def test_second_process(home: Path, killed: bool) -> None:
    """A lock of another process is waited for, and is free once that process is gone."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin
        assert child.stdout
        assert child.stdout.readline() == "held\n"
        waits = 0
        time = 0.0

        def sleep(seconds: float) -> None:
            nonlocal waits, time
            waits += 1
            time += seconds
            if waits == 1:
                child.kill() if killed else child.communicate("\n", timeout=60)
                child.wait(60)

        locks = Locks(Home(home), Retry(sleep=sleep, clock=lambda: time))
        with locks.trying("name") as held:
            assert not held
        with locks.waiting("name"):
            assert waits >= 1


def test_interrupt_ends_the_waiting(locks: Locks, opened: Callable[..., Locks]) -> None:
    """An interrupt while waiting goes through at once."""

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    again = opened(Retry(sleep=interrupted))
    with locks.waiting("name"), pytest.raises(KeyboardInterrupt), again.waiting("name"):
        pass
