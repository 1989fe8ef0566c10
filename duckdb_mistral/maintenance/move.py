"""Moving in with a team, and out again: rows between the ledger under `home` and PostgreSQL, files to and from a store.

On the way to the team, the ledger under `home` is stamped before its first row is copied: from then on nothing is sent
from it. So a job is planned in one ledger alone that anybody can send from. A move that was killed is completed by the
next one.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from duckdb_mistral.batches.spools import unknown_spools, unmark
from duckdb_mistral.errors import LedgerError, SettingError
from duckdb_mistral.maintenance.carry import Carried, Carrier
from duckdb_mistral.runtime.failpoints import failpoint
from duckdb_mistral.state.ledger import Ledger
from duckdb_mistral.state.locks import Locks
from duckdb_mistral.state.moving import Merged, merge, read_rows
from duckdb_mistral.state.names import REPAIR_LOCK
from duckdb_mistral.state.reading import LedgerReader
from duckdb_mistral.state.sqlite import SQLiteDatabase
from duckdb_mistral.state.stamp import Stamp, finish, id_of, read_stamp, stamp
from duckdb_mistral.state.versions import prepare

if TYPE_CHECKING:
    from collections.abc import Callable

    from duckdb_mistral.batches.context import Context
    from duckdb_mistral.state.database import Database
    from duckdb_mistral.state.home import Home

    #: Sees the files that were carried so far, again and again.
    Watch = Callable[[Carried], object]


def unwatched(_: Carried) -> None:
    """Let a move be silent."""


@dataclass(kw_only=True)
class Moved:
    """What a move did."""

    #: The rows, None where no ledger is shared, or none lies under `home`.
    rows: Merged | None = None
    #: The files, where there is a store.
    files: Carried = field(default_factory=Carried)


def move_to_team(context: Context, watch: Watch = unwatched) -> Moved:
    """Copy the ledger under `home` into the team's, and what other machines need of its files into the store.

    Each as far as the settings `ledger` and `store` name one. `watch` sees the files that went into the store so far.
    Raises SettingError if neither is set; LedgerError if a job may be on its way to the API, or the ledger cannot be
    read or was moved to another one; StoreError.
    """
    return _told_files(context, lambda: _move_to_team(context, watch))


def move_home(context: Context, watch: Watch = unwatched) -> Moved:
    """Copy the team's ledger into that under `home`, and the files that it knows from the store to `home`.

    The team's ledger and store stay as they are. The ledger under `home` is made where there is none. `watch` sees the
    files that came so far. Raises what `move_to_team` raises.
    """
    return _told_files(context, lambda: _move_home(context, watch))


def own_ledger(home: Home) -> str | None:
    """Return whether the ledger under `home` was moved to a team's, for people; None where it cannot be read, if any.

    Raises LedgerError if a move was cut short.
    """
    if not home.ledger.exists():
        return None
    try:
        with closing(SQLiteDatabase(home)) as own:
            found = read_stamp(own)
    except LedgerError:  # it is not used
        return None
    if found is None:
        return (
            f"The ledger under {home} is not used as long as DUCKDB_MISTRAL_LEDGER is set: `duckdb-mistral move --to "
            "team` moves what it knows."
        )
    if not found.finished:
        raise LedgerError(found.sentence(own.place))
    return f"The ledger under {home} was moved to the ledger {found.place}."


def _move_to_team(context: Context, watch: Watch) -> Moved:
    home, moved = context.home, Moved()
    with context.locks.waiting(REPAIR_LOCK):
        team = context.ledger  # what cannot be reached is told before anything is changed
        own = _own(home) if context.settings.ledger is not None else None
        carrier = None if home.store is None else Carrier(home, home.store, watch)
        team_id = None if own is None else _checked(own.database, team.database)
        if carrier is not None and own is not None:
            # Put first, recorded after that.
            carrier.put(own, Locks(home, context.retry))
            failpoint("after-files")
        if own is not None and team_id is not None:
            if read_stamp(own.database) is None:
                stamp(own.database, team.place, team_id)
                failpoint("after-stamp")
            rows = read_rows(own.database)
            moved.rows = merge(team.database, rows, wins=False, sized=home.store is not None)
            failpoint("after-rows")
            finish(own.database)
            own.database.close()
        if carrier is not None:
            carrier.put(team, context.locks, recorded=True)
            moved.files = carrier.counts
    return moved


def _move_home(context: Context, watch: Watch) -> Moved:
    home, moved = context.home, Moved()
    with context.locks.waiting(REPAIR_LOCK):
        team = context.ledger
        carrier = None if home.store is None else Carrier(home, home.store, watch)
        if context.settings.ledger is not None:
            own = _own(home)
            if own is not None:
                _checked(own.database, team.database)
            rows = read_rows(team.database)
            if own is None:
                moved.rows = _built(home, lambda database: merge(database, rows, wins=True))
            else:
                moved.rows = merge(own.database, rows, wins=True)
                own.database.close()
            failpoint("after-rows")
            # What another home has forgotten was never sent, and an own ledger does not remember that.
            for path in unknown_spools(home, team):
                if team.was_forgotten(path.name):
                    unmark(path)
        if carrier is not None:
            ledger = Ledger(home)
            carrier.bring(ledger)
            ledger.database.close()
            moved.files = carrier.counts
    return moved


def _told_files(context: Context, move: Callable[[], Moved]) -> Moved:
    if context.settings.ledger is None and context.settings.store is None:
        raise SettingError(
            "Neither DUCKDB_MISTRAL_LEDGER nor DUCKDB_MISTRAL_STORE is set, so there is no team to move to or from: "
            "nothing was moved. Set the address of its ledger, the URL of its store, or both."
        )
    try:
        return move()
    except OSError as error:
        raise LedgerError(
            f"{error.filename or context.home} could not be read or written ({error.strerror}), so not all was moved. "
            "Nothing is lost: fix the problem and run the same command again for the rest."
        ) from error


def _own(home: Home) -> LedgerReader | None:
    """Return the ledger under `home`, whether it is stamped or not; None where there is none.

    Raises LedgerError if it is damaged, or of a newer version.
    """
    if not home.ledger.exists():
        return None
    database = SQLiteDatabase(home)
    prepare(database)
    return LedgerReader(database)


def _checked(own: Database, team: Database) -> str:
    """Return the id of the team's ledger; raise LedgerError where the one under `home` was moved to another one."""
    team_id = id_of(team)
    found = read_stamp(own)
    if found is not None and found.ledger_id != team_id:
        raise LedgerError(_moved_elsewhere(found, own, team))
    return team_id


def _moved_elsewhere(found: Stamp, own: Database, team: Database) -> str:
    return (
        f"The ledger {own.place} was moved to the ledger {found.place}, and the one {team.place} is another one, so "
        "nothing was moved. Set DUCKDB_MISTRAL_LEDGER to the former and move home first."
    )


def _built(home: Home, fill: Callable[[Database], Merged]) -> Merged:
    """Make a ledger under `home` that gets its name once it is whole."""
    building = home.building
    # One process at a time is here, so what lies there is what a killed one has left.
    shutil.rmtree(building.path, ignore_errors=True)
    ledger = Ledger(building)
    done = fill(ledger.database)
    ledger.settle()
    ledger.database.close()
    failpoint("before-ledger")
    ledger.path.replace(home.ledger)
    shutil.rmtree(building.path, ignore_errors=True)
    return done
