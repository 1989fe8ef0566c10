"""What PostgreSQL or the way to it refuses, in sentences: what happened, that nothing is sent, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duckdb_mistral.errors import LedgerError

if TYPE_CHECKING:
    import sqlalchemy as sa

    from duckdb_mistral.state.address import Address

#: A transaction of another process stood in the way, and this one was rolled back.
CLASHES = frozenset({"40001", "40P01"})
#: The connection broke, or the server is about to end or to begin.
LOST = ("08", "57P")
READ_ONLY = "25006"
FULL_DISK = "53100"
NO_CONNECTIONS = "53300"
REFUSED = ("42501", "28")
#: What a pooler such as pgbouncer says of `options` in an address; the SQLSTATE is that of a broken connection.
NO_OPTIONS = "unsupported startup parameter"


class LostError(LedgerError):
    """There is no connection to the server, or it broke: then whether the statement was run is not known."""


class ClashError(LedgerError):
    """Another transaction was in the way, and nothing of this one was done."""


def told(error: sa.exc.DBAPIError, address: Address) -> LedgerError:
    """Return the error that tells a user what became of a statement."""
    # What the driver asks back is what the sentence says anyway.
    lines = [
        line.strip() for line in str(error.orig).splitlines() if not line.strip().startswith("Is the server running")
    ]
    reason = address.hide(" ".join(" ".join(lines).split()))
    state = getattr(error.orig, "sqlstate", None) or ""
    where = f"The ledger at {address.shown}"
    if state in CLASHES:
        return ClashError(
            f"Other processes keep writing the same rows of the ledger at {address.shown} ({reason}), so nothing is "
            "sent. Try again."
        )
    if state == READ_ONLY:
        return LedgerError(
            f"{where} is read-only ({reason}), as a replica is, so nothing is sent. Set DUCKDB_MISTRAL_LEDGER to the "
            "address of the primary server, and run the statement again."
        )
    if state == FULL_DISK:
        return LedgerError(
            f"{where} has no room on the server's disk ({reason}), so nothing is sent. Free some space there, and run "
            "the statement again."
        )
    if state == NO_CONNECTIONS:
        return LostError(
            f"{where} takes no more connections ({reason}), so nothing is sent. Raise max_connections there or use a "
            "pooler such as pgbouncer, and run the statement again."
        )
    if state.startswith(REFUSED):
        return LedgerError(
            f"{where} refuses this user ({reason}), so nothing is sent. Check the user and the password of "
            "DUCKDB_MISTRAL_LEDGER, and that the user may create tables there and write them."
        )
    if NO_OPTIONS in reason:
        return LedgerError(
            f"{where} is behind a pooler that takes no options from an address ({reason}), so nothing is sent. Leave "
            "them out of DUCKDB_MISTRAL_LEDGER. A schema can be chosen at the server instead: "
            "ALTER ROLE … SET search_path = …."
        )
    if error.connection_invalidated or state.startswith(LOST) or (not state and _is_operational(error)):
        return LostError(
            f"{where} cannot be reached ({reason}), so nothing is sent. Check that PostgreSQL runs there and that "
            "DUCKDB_MISTRAL_LEDGER is its address, and run the statement again."
        )
    return LedgerError(
        f"{where} cannot be used ({reason}), so nothing is sent. Run the statement again, and look into the server's "
        "log if it says the same."
    )


def _is_operational(error: sa.exc.DBAPIError) -> bool:
    """Tell whether an error is of the driver itself, which found no connection, or one that had broken."""
    return type(error.orig).__name__ == "OperationalError"
