"""The stamp on a ledger under `home` that was moved to a team's: from then on it can be read, and not written.

Triggers of its own keep it as it was, so a process that opened it before sends nothing from it either, and neither
does an older version of this package. The version of its tables stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import sqlalchemy as sa

from duckdb_mistral.errors import LedgerError
from duckdb_mistral.jobs.job import LOST
from duckdb_mistral.state.tables import jobs, meta, parts, submissions

if TYPE_CHECKING:
    from duckdb_mistral.state.database import Database

#: The rows of `meta` that are the stamp: where the ledger is being moved, or was, and the id of the ledger there.
MOVING, MOVED, LEDGER_ID = "moving_to", "moved_to", "moved_to_ledger"
#: The row of a team's ledger that holds its id, and how often that is tried to be written.
OWN_ID, RACES = "ledger_id", 10
VERBS = ("INSERT", "UPDATE", "DELETE")


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """Where a ledger went."""

    #: The team's ledger, as it follows "the ledger" in a sentence.
    place: str
    #: Which ledger that is, whatever its address.
    ledger_id: str
    #: Whether all of it is there.
    finished: bool

    def sentence(self, place: str) -> str:
        """Return what to tell whoever opens the stamped ledger, which lies at `place`."""
        if self.finished:
            return _moved(place, self.place)
        return (
            f"The ledger {place} is being moved to the ledger {self.place}, so nothing is sent from here. If no move "
            "is running, one was cut short: run `duckdb-mistral move --to team` again, with the same "
            "DUCKDB_MISTRAL_LEDGER."
        )


def read_stamp(database: Database) -> Stamp | None:
    """Return the stamp of a ledger whose tables are there; None where it was not moved."""
    wanted = meta.c.name.in_([MOVING, MOVED, LEDGER_ID])
    found = {row.name: row.value for row in database.rows(sa.select(meta).where(wanted))}
    place = found.get(MOVED) or found.get(MOVING)
    if place is None:
        return None
    return Stamp(place=place, ledger_id=found.get(LEDGER_ID, ""), finished=MOVED in found)


def check_not_moved(database: Database) -> None:
    """Raise LedgerError if a ledger was moved to a team's, or is on its way there."""
    if not database.shared:
        stamp = read_stamp(database)
        if stamp is not None:
            raise LedgerError(stamp.sentence(database.place))


def stamp(database: Database, place: str, ledger_id: str) -> None:
    """Stamp a ledger as on its way to another one, from where on nothing is sent from it.

    Raises LedgerError, and does nothing, where a job may just be on its way to the API.
    """

    def mark(connection: sa.Connection) -> None:
        # In the same transaction as the stamp: a create that is recorded after this is refused.
        check_settled(connection, database.place)
        unstamp(connection)
        connection.execute(meta.insert(), [{"name": MOVING, "value": place}, {"name": LEDGER_ID, "value": ledger_id}])
        told = _moved(database.place, place).replace("'", "''")
        for table in (submissions, parts, jobs):
            for verb in VERBS:
                connection.exec_driver_sql(
                    f"CREATE TRIGGER {_trigger(table, verb)} BEFORE {verb} ON {table.name} "
                    f"BEGIN SELECT RAISE(ABORT, '{told}'); END"
                )

    database.transact(mark)


def finish(database: Database) -> None:
    """Note that all of a stamped ledger is where it was moved."""
    database.write(meta.update().where(meta.c.name == MOVING).values(name=MOVED))


def id_of(database: Database) -> str:
    """Return what tells a team's ledger from all others; it is made up when it is first asked for."""
    wanted = sa.select(meta.c.value).where(meta.c.name == OWN_ID)
    for _ in range(RACES):
        for row in database.rows(wanted):
            return str(row.value)
        try:
            database.run(meta.insert(), {"name": OWN_ID, "value": str(uuid4())})
        except sa.exc.IntegrityError:
            continue  # another process was quicker
    raise LedgerError(f"The ledger {database.place} could not be given an id, so nothing was moved. Try again.")


def unstamp(connection: sa.Connection) -> None:
    """Let a ledger be written again, if it is stamped."""
    for table in (submissions, parts, jobs):
        for verb in VERBS:
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {_trigger(table, verb)}")
    connection.execute(meta.delete().where(meta.c.name.in_([MOVING, MOVED, LEDGER_ID])))


def check_settled(connection: sa.Connection, place: str) -> None:
    """Raise LedgerError if a job of a ledger may be on its way to the API, or have arrived there unheard."""
    found = connection.execute(
        sa.select(jobs.c.submission_id, jobs.c.part).where(jobs.c.step.in_(LOST)).order_by(jobs.c.key)
    ).all()
    if found:
        others = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise LedgerError(
            f"Part {found[0].part} of submission {found[0].submission_id}{others} in the ledger {place} may be on its "
            "way to the API at this moment, or its answer was lost, so no row of a ledger was moved. With that ledger, "
            "run `duckdb-mistral status` until it no longer says UNKNOWN, or the same submit once more; then move "
            "again."
        )


def _moved(here: str, there: str) -> str:
    return (
        f"The ledger {here} was moved to the ledger {there}, so nothing is sent from here. Set DUCKDB_MISTRAL_LEDGER "
        "to its address again, or run `duckdb-mistral move --to home` with it to move back."
    )


def _trigger(table: sa.Table, verb: str) -> str:
    return f"moved_{table.name}_{verb.lower()}"
