"""The tables of a ledger that is opened: made where there are none, and brought up to date where they are older."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from duckdb_mistral.errors import LedgerError
from duckdb_mistral.state.tables import MIGRATIONS, SCHEMA_VERSION, meta

if TYPE_CHECKING:
    from duckdb_mistral.state.database import Database


def prepare(database: Database) -> None:
    """Make the tables, or bring an older version's up to date; raises LedgerError for a damaged or a newer ledger."""
    damage = database.damage()
    if damage is not None:
        raise database.damaged(damage)
    if database.read(_version) != str(SCHEMA_VERSION):
        database.transact(lambda connection: _bring_up_to_date(database, connection))


def _bring_up_to_date(database: Database, connection: sa.Connection) -> None:
    database.change_tables(connection)
    written = _version(connection)
    if written is None:
        database.make_tables(connection)
        connection.execute(meta.insert(), {"name": "schema_version", "value": str(SCHEMA_VERSION)})
        return
    version = int(written) if written.isascii() and written.isdigit() and len(written) < 10 else 0
    if version < 1:
        raise database.damaged(f"its version is {written[:50]!r}")
    if version > SCHEMA_VERSION:
        raise LedgerError(
            f"The ledger {database.name} was written by a newer duckdb_mistral (its version is {version}, "
            f"this one knows {SCHEMA_VERSION}). Upgrade duckdb-mistral, or use another {_what(database)}."
        )
    for older in range(version, SCHEMA_VERSION):
        for statement in MIGRATIONS[older]:
            connection.exec_driver_sql(statement)
    connection.execute(meta.update().where(meta.c.name == "schema_version").values(value=str(SCHEMA_VERSION)))


def _what(database: Database) -> str:
    return "database" if database.shared else "home"


def _version(connection: sa.Connection) -> str | None:
    """Return what is written down as the version of the tables, or None where there are none."""
    if not sa.inspect(connection).has_table(meta.name):
        return None
    found = connection.execute(sa.select(meta.c.value).where(meta.c.name == "schema_version")).scalar_one_or_none()
    return None if found is None else str(found)
