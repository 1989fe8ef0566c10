"""Locks between machines: rows in the shared ledger that expire by its server's clock, and are renewed until then.

A lock is taken twice. First its file under `home`, which this machine lets go of at once when a process dies; then its
row, for the others. Whoever holds the file knows that no other process of the same directory is alive that has the row,
and takes it over without waiting; one of another machine that died is waited for until its row has expired.

A holder that was stopped, or cut off from the server, may have lost its row to another one. It finds out where it
matters: a job moves to SENDING only in a statement that also sees the row still owned (`Ledger.move`).
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import sqlalchemy as sa

from duckdb_mistral.errors import LedgerError
from duckdb_mistral.state.locks import Locks, Turn
from duckdb_mistral.state.names import is_of_files
from duckdb_mistral.state.tables import locks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from duckdb_mistral.runtime.retry_policy import Retry
    from duckdb_mistral.state.database import Database
    from duckdb_mistral.state.home import Home

#: How long a lock outlives a holder that died on another machine, or that cannot reach the server.
LEASE_SECONDS = 30.0
#: It is renewed after this share of that time.
RENEWED = 1 / 4
#: The pauses between looks at a lock that another machine holds, the first and the longest.
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 1.0

# Rows that were taken in vain, as their answer was lost, have our own owner.
_TAKE = sa.text(
    "INSERT INTO locks (name, owner, place, told, until) "
    "VALUES (:name, :owner, :place, :told, clock_timestamp() + make_interval(secs => :seconds)) "
    "ON CONFLICT (name) DO UPDATE "
    "SET owner = excluded.owner, place = excluded.place, told = excluded.told, until = excluded.until "
    "WHERE locks.until < clock_timestamp() OR locks.place = excluded.place OR locks.owner = excluded.owner"
)
_RENEW = sa.text(
    "UPDATE locks SET until = clock_timestamp() + make_interval(secs => :seconds) WHERE name = :name AND owner = :owner"
)
# Not a lock: `until` is when the turn was had last, so long ago that whoever asks may have it again.
_TURN = sa.text(
    "INSERT INTO locks (name, owner, place, told, until) VALUES (:name, '', '', :told, clock_timestamp()) "
    "ON CONFLICT (name) DO UPDATE SET told = excluded.told, until = excluded.until "
    "WHERE locks.until <= clock_timestamp() - make_interval(secs => :seconds)"
)
_LET_GO = sa.text("DELETE FROM locks WHERE name = :name AND owner = :owner")


@dataclass(frozen=True, kw_only=True)
class Lease:
    """One lock while it is held."""

    name: str
    owner: str
    #: The process that took it: a fork of that does not hold it.
    process: int
    done: threading.Event = field(default_factory=threading.Event)


class Leases(Locks):
    """The locks of one shared ledger, for the user of one `home`."""

    def __init__(
        self,
        home: Home,
        retry: Retry,
        database: Callable[[], Database],
        *,
        seconds: float | None = None,
    ) -> None:
        """Keep the rows in what `database` returns, which is asked when the first lock is taken.

        A lock lives `seconds` unrenewed: LEASE_SECONDS, if nothing else is said.
        """
        super().__init__(home, retry)
        self._database = database
        self._seconds = seconds or LEASE_SECONDS
        self._leases: dict[str, Lease] = {}

    @contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """Hold the lock `name`, once whoever holds it has let go or is gone; an interrupt ends the waiting."""
        with super().waiting(name):
            pause = FIRST_PAUSE_SECONDS
            while not self._taken(name):
                self._retry.pause(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            try:
                yield
            finally:
                self._let_go(name)

    @contextmanager
    def trying(self, name: str) -> Iterator[bool]:
        """Hold the lock `name` if it is free; yields whether it is held."""
        with super().trying(name) as held:
            if not held or not self._taken(name):
                yield False
                return
            try:
                yield True
            finally:
                self._let_go(name)

    def held(self, name: str) -> Callable[[], None] | None:
        """Take the lock `name` if it is free, and return what lets go of it; None where it is taken."""
        release = super().held(name)
        if release is None:
            return None
        try:
            taken = self._taken(name)
        except BaseException:
            release()
            raise
        if not taken:
            release()
            return None

        def let_go() -> None:
            self._let_go(name)
            release()

        return let_go

    @contextmanager
    def turn(self, name: str, seconds: float) -> Iterator[Turn]:
        """Yield a turn, which is ours if nobody has it now, nor had it for so many seconds, counted from its end."""
        with self.trying(name) as held:
            turn = Turn(is_ours=held and self._had(name, seconds))
            try:
                yield turn
            except BaseException:
                turn.in_vain = True
                raise
            finally:
                if turn.is_ours and turn.in_vain:
                    with suppress(LedgerError):
                        self._database().run(_LET_GO, {"name": _turn_of(name), "owner": ""})
                elif turn.is_ours:
                    self._had(name, 0)

    def conditions(self, name: str) -> list[sa.ColumnElement[bool]]:
        """Return what is true of a statement at the server as long as this process holds the lock `name`."""
        mine = self._mine(name)
        return [sa.false() if mine is None else sa.exists().where(mine)]

    def keep(self, connection: sa.Connection, name: str) -> None:
        """Let nobody take the lock `name` until a transaction has ended; raise LedgerError if it was lost before."""
        mine = self._mine(name)
        if mine is not None:
            row = sa.select(locks.c.name).where(mine).with_for_update(read=True)
            if connection.execute(row).first() is not None:
                return
        raise self._lost(name)

    def check(self, name: str) -> None:
        """Raise LedgerError if this process no longer holds the lock `name`."""
        if not self._database().rows(sa.select(sa.literal(1)).where(*self.conditions(name))):
            raise self._lost(name)

    def _mine(self, name: str) -> sa.ColumnElement[bool] | None:
        """Return what is true of the row of a lock as long as this process holds it; None if it has not taken it."""
        lease = self._leases.get(name)
        if lease is None or lease.process != os.getpid():
            return None
        return sa.and_(locks.c.name == name, locks.c.owner == lease.owner, locks.c.until > sa.func.clock_timestamp())

    def _lost(self, name: str) -> LedgerError:
        return LedgerError(
            f"This process was stopped, or cut off from the ledger {self._database().place}, for more than "
            f"{self._seconds:g} seconds, in which another one may have gone on with {name}, so nothing more is "
            "sent. Run the statement again: it continues from what is recorded."
        )

    def _had(self, name: str, seconds: float) -> bool:
        """Write down that a turn is had now, if it was not within so many seconds; tell whether that is so."""
        values = {"name": _turn_of(name), "told": self._told(), "seconds": seconds}
        return bool(self._database().run(_TURN, values))

    def _taken(self, name: str) -> bool:
        """Take the row of a lock whose file is held here; False where another place has it."""
        if is_of_files(name):
            return True
        lease = Lease(name=name, owner=str(uuid4()), process=os.getpid())
        database = self._database()
        values = self._values(lease) | {
            "place": self._place(),
            "told": self._told(),
        }
        try:
            if not database.run(_TAKE, values):
                return False
        except BaseException:
            # It may be taken all the same, if the answer was lost, or the waiting for it interrupted.
            with suppress(LedgerError):
                database.run(_LET_GO, {"name": name, "owner": lease.owner})
            raise
        self._leases[name] = lease
        threading.Thread(target=self._renew, args=(database, lease), name=f"lease of {name}", daemon=True).start()
        return True

    def _renew(self, database: Database, lease: Lease) -> None:
        """Renew a lease until it is let go of, or lost."""
        while not lease.done.wait(self._seconds * RENEWED):
            with suppress(LedgerError):  # it is tried again; the lease may be lost meanwhile, as `check` finds out
                if not database.run(_RENEW, self._values(lease)):
                    return

    def _let_go(self, name: str) -> None:
        lease = self._leases.get(name)
        if lease is None or lease.process != os.getpid():
            return
        del self._leases[name]
        lease.done.set()
        with suppress(LedgerError):  # it expires, and is free to this place at once
            self._database().run(_LET_GO, {"name": name, "owner": lease.owner})

    def _values(self, lease: Lease) -> dict[str, Any]:
        return {"name": lease.name, "owner": lease.owner, "seconds": self._seconds}

    def _told(self) -> str:
        return f"{socket.gethostname()}, process {os.getpid()}"

    def _place(self) -> str:
        """Return what tells the directory of the lock files from all others, of any machine, since it was started."""
        boot = _boot()
        if boot is None:
            return str(uuid4())
        directory = self._home.locks.stat()
        return f"{boot} {directory.st_dev}:{directory.st_ino}"


def _turn_of(name: str) -> str:
    return f"{name} turn"


@cache
def _boot() -> str | None:
    """Return what tells this running system from all others; None where it does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
